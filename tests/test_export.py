"""An exported model is the one that was trained.

Its weights-out loss is the row's, its logits are those of the kept weights.
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import tomli_w

from scaling import hf_export
from scaling.config import Execution, OptimConfig, RunConfig, TextTask
from scaling.errors import ScalingError
from scaling.execute.simulated import simulate
from scaling.execute.verify import inspect
from scaling.export import export_model
from scaling.plan import plan
from scaling.store import rows, run_files
from scaling.store.rows import Provenance
from scaling.tasks import open_task, resolve
from scaling.train import saved_params
from tests import command_line
from tests.execute.sweeping import scaling
from tests.models import small_model
from tests.sweep_files import TINY, tiny

pytestmark = pytest.mark.slow

pytest.importorskip("safetensors")
ONE = TINY | {"design": {"kind": "grid", "sizes": ["2k"], "tokens": ["20k"]}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One tiny run, followed by TensorBoard where it is installed, its weights kept."""
    root = tmp_path_factory.mktemp("trained")
    (root / "one.toml").write_text(tomli_w.dumps(ONE), encoding="utf-8")
    followed = ("--track", "tensorboard") if _has_tensorboard() else ()
    done = scaling("run", root / "one.toml", "--out", root / "one", "--keep-weights", *followed)
    assert done.returncode == 0, done.stderr
    return root / "one"


def _has_tensorboard():
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def test_an_exported_model_gives_the_loss_and_the_logits_of_the_run(trained, tmp_path):
    from scaling.export import export_model, load
    from scaling.train import saved_params
    from scaling.train.evaluate import Evaluator
    from scaling.train.fingerprint import resolve_for_local_devices

    (run_id,) = run_files.finished_run_ids(trained)
    document = export_model(trained, run_id, tmp_path / "model")
    model = load(tmp_path / "model")
    rows = run_files.read_run(trained, run_id)
    reported = rows[(rows["metric"] == "loss") & (rows["split"] == "val")].iloc[-1]
    assert document == model.config == json.loads((tmp_path / "model" / "config.json").read_text())
    assert (document["loss"]["value"], document["run_id"], document["sweep"]) == (
        reported["value"],
        run_id,
        "tiny",
    )
    assert document["n_params"]["total"] == sum(
        np.prod(entry["shape"]) for entry in document["tensors"].values()
    )
    assert {entry["dtype"] for entry in document["tensors"].values()} == {"float32"}
    evaluator = Evaluator(
        model.run,
        open_task(model.run.task),
        resolve_for_local_devices(model.run, Execution()),
    )
    assert (
        evaluator.loss(model.params).value == reported["value"]
    )  # to the bit: the same program on the same machine
    tokens = np.arange(60).reshape(2, 30) % model.run.model.vocab_size
    kept = saved_params.unflatten(
        model.run, saved_params.load_params(trained / "weights" / f"{run_id}.npz", model.run)
    )
    logits = model.logits(tokens)
    assert (logits.shape, logits.dtype) == ((2, 30, model.run.model.vocab_size), np.float32)
    np.testing.assert_array_equal(logits, saved_params.logits(model.run, kept, tokens))
    with pytest.raises(ScalingError, match="exists already"):
        export_model(trained, run_id, tmp_path / "model")
    with pytest.raises(ScalingError, match="ids of the vocabulary"):
        model.logits(tokens + 1000)
    assert "weights" in {path.parent.name for path in trained.rglob("*.npz")}
    assert not list((trained / "checkpoints").glob("*"))  # a run so short may have had none


def test_events_of_a_run_in_training_end_with_its_rows(trained):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run_id,) = run_files.finished_run_ids(trained)
    weights = EventAccumulator(str(trained / "tracking" / "tensorboard" / "tiny" / run_id)).Reload()
    for (split, metric), group in run_files.read_run(trained, run_id).groupby(["split", "metric"]):
        assert [event.step for event in weights.Scalars(f"{split}/{metric}")] == group[
            "step"
        ].tolist()
        np.testing.assert_allclose(
            [event.value for event in weights.Scalars(f"{split}/{metric}")],
            group["value"],
            rtol=1e-6,
        )
    assert not list((trained / "logs").glob("tracking-*"))
    assert {found.state for found in inspect(trained)} == {"whole"}


def test_exported_axes_describe_the_kernel_layout(trained):
    from scaling.config.sweep_file import load_run
    from scaling.train import saved_params

    (run_id,) = run_files.finished_run_ids(trained)
    run = load_run(run_files.read_run(trained, run_id)["config"].iloc[0], "here")
    axes, d_ff, d_model = saved_params.axes(run), run.model.d_ff, run.model.d_model
    kept = saved_params.load_params(trained / "weights" / f"{run_id}.npz", run)
    assert set(axes) == set(kept)
    assert all(len(axes[name]) == array.ndim for name, array in kept.items())
    assert (axes["blocks.0.ffn.up.kernel"], kept["blocks.0.ffn.up.kernel"].shape) == (
        ("d_in", "d_out"),
        (d_model, d_ff),
    )
    assert (axes["blocks.0.ffn.down.kernel"], kept["blocks.0.ffn.down.kernel"].shape) == (
        ("d_out", "d_in"),
        (d_model, d_ff),
    )


def test_missing_or_corrupt_weights_are_reported_with_the_remedy(trained, tmp_path):
    from scaling.export import export_model, load

    sweep = tiny()
    task = resolve(sweep.base.task)
    planned = plan(sweep, task, open_task(task).vocab_size, "published:besiroglu2024").runs[0]
    outcome = simulate(planned.run)
    run_files.write_run(
        tmp_path / "none",
        rows.rows("tiny", planned.run, outcome.measured, Provenance("here", None, "1")),
    )
    with pytest.raises(ScalingError, match="has kept no weights") as caught:
        export_model(tmp_path / "none", planned.run_id, tmp_path / "model")
    assert "--keep-weights" in caught.value.remedy
    with pytest.raises(ScalingError, match="unknown run 'abc'"):
        export_model(trained, "abc", tmp_path / "model")
    with pytest.raises(ScalingError, match="no exported model"):
        load(tmp_path)
    (run_id,) = run_files.finished_run_ids(trained)
    weights = trained / "weights" / f"{run_id}.npz"
    data = weights.read_bytes()
    try:
        weights.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
        with pytest.raises(ScalingError, match="corrupt weights"):
            export_model(trained, run_id, tmp_path / "model")
    finally:
        weights.write_bytes(data)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("more", [("--simulate", "published:besiroglu2024"), ("--hosts", "2")])
def test_weights_of_a_simulated_run_are_rejected_at_once(more, tmp_path):
    asked = ("--out", tmp_path / "x", "--keep-weights", *more)
    refused = command_line.scaling("run", "sweeps/demo.toml", *asked, code=2)
    assert "--keep-weights" in refused.stderr
    assert not (tmp_path / "x").exists()


def test_a_model_that_no_library_knows_is_not_exported_for_hugging_face(trained, tmp_path):
    (run_id,) = run_files.finished_run_ids(trained)
    with pytest.raises(ScalingError, match='neither a Llama nor a Qwen3: ffn = "gelu"') as caught:
        export_model(trained, run_id, tmp_path / "model", "hf")
    assert "bias = false" in caught.value.remedy  # as a sweep file has it
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("model", [{}, {"qk_norm": False, "tie_embeddings": True}], ids=str)
def test_the_arrays_for_hugging_face_are_the_parameters_once(model):
    """Their names and shapes are those of Llama and Qwen3, and no number is lost."""
    run = hf_run(**model)
    named = hf_named(run)
    arrays = hf_export.tensors(run.model, named, saved_params.axes(run))
    assert sum(array.size for array in arrays.values()) == sum(a.size for a in named.values())
    assert arrays["model.layers.1.self_attn.k_proj.weight"].shape == (8, 32)
    assert arrays["model.layers.1.mlp.down_proj.weight"].shape == (32, 96)
    gate = arrays["model.layers.0.mlp.gate_proj.weight"]
    np.testing.assert_array_equal(gate.T, named["blocks.0.ffn.up.kernel"][:, :96])


def test_a_model_is_not_exported_to_an_address(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run_id,) = run_files.finished_run_ids(trained)
    with pytest.raises(ScalingError, match="s3:// addresses are not supported"):
        export_model(trained, run_id, Path("s3://bucket/model"))
    assert list(tmp_path.iterdir()) == []


def test_a_mixture_of_experts_is_not_exported_to_hugging_face():
    with pytest.raises(ScalingError, match="neither a Llama nor a Qwen3: n_experts = 2"):
        hf_export.check_exportable(hf_run(n_experts=2).model)


@pytest.mark.parametrize("separator", [None, 0])
def test_a_byte_tokenizer_gives_every_byte_its_value(separator):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(hf_export.byte_tokenizer(separator))
    text = "Grüße, 世界\n\t\x00Ā\x00\x00"
    ids = tokenizer.encode(text).ids
    assert ids == list(text.encode())
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model", [{}, {"qk_norm": False, "tie_embeddings": True}], ids=str)
def test_transformers_computes_the_same_logits(model, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from safetensors.numpy import save_file

    run = hf_run(**model)
    named = hf_named(run)
    config = hf_export.config(run, separator=0)
    (tmp_path / "config.json").write_text(json.dumps(config))
    arrays = hf_export.tensors(run.model, named, saved_params.axes(run))
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(theirs).__name__ == config["architectures"][0]
    tokens = np.random.default_rng(1).integers(0, 64, (2, 16))
    with torch.no_grad():
        logits = theirs(torch.from_numpy(tokens)).logits.numpy()
    ours = saved_params.logits(run, saved_params.unflatten(run, named), tokens)
    np.testing.assert_allclose(logits, ours, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of packages that are not ours
def test_lm_eval_chooses_the_likeliest_continuation(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lm_eval = pytest.importorskip("lm_eval")
    from safetensors.numpy import save_file

    run, choices = hf_run(vocab_size=256), ["ab", "Ā!", "\n0"]
    named = hf_named(run)
    arrays = hf_export.tensors(run.model, named, saved_params.axes(run))
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name, text in hf_export.texts(run, {"kind": "bytes", "separator": 0}, None).items():
        (tmp_path / name).write_text(text)
    params, likeliest = saved_params.unflatten(run, named), []
    for context in ("x = ", "def ", "a["):
        scores = []
        for choice in choices:
            ids = np.frombuffer((context + choice).encode(), np.uint8).astype(np.int32)
            logits = saved_params.logits(run, params, ids[None, :-1])[0]
            nll = np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(ids) - 1), ids[1:]]
            scores.append(-nll[len(context.encode()) - 1 :].sum())
        likeliest.append(int(np.argmax(scores)))
    documents = [
        {"context": context, "choices": choices, "answer": answer}
        for context, answer in zip(("x = ", "def ", "a["), likeliest, strict=True)
    ]
    (tmp_path / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
    task = {
        "task": "likeliest",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "documents.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc"}],
    }
    arguments = {"pretrained": str(tmp_path), "dtype": "float32"}
    scored = lm_eval.simple_evaluate("hf", arguments, [task], device="cpu", bootstrap_iters=0)
    assert scored["results"]["likeliest"]["acc,none"] == 1.0


def hf_run(**model):
    shape = {"n_kv_heads": 1, "d_ff": 96, "vocab_size": 64, "ffn": "swiglu"}
    return RunConfig(
        model=small_model(**{"d_model": 32, "n_heads": 4} | shape | model),
        task=TextTask(kind="text", seq_len=16),
        optim=OptimConfig(lr=1e-3),
        batch_size=1,
        n_steps=100,
    )


def hf_named(run):
    """Parameters by name, none of them at its initial value."""
    from scaling.train.model.transformer import init

    rng = np.random.default_rng(0)
    params = init(run.model, run.task.seq_len, jax.random.key(0))
    return {
        name: np.asarray(leaf) + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32)
        for name, leaf in saved_params.by_name(params)
    }
