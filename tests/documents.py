"""Fits, predictions and comparisons as the JSON that their users read."""

from scaling import files
from scaling.fit import pipeline
from scaling.fit.document import to_jsonable
from scaling.fit.result import FitResult
from scaling.predict import compare as comparing
from scaling.predict import predict as predicting


def fit(paths, options):
    return pipeline.fit(paths, options).to_dict()


def predict(source, **question):
    return predicting.predict(source, **question).to_dict()


def as_fit(document):
    """The typed result of a document, without its checksum."""
    return FitResult.model_validate(
        {key: part for key, part in document.items() if key not in files.KEYS}
    )


def compare(documents, *args, **options):
    fits = {name: as_fit(document) for name, document in documents.items()}
    return comparing.compare(fits, *args, **options).to_dict()


def load(path):
    return FitResult.load(path).to_dict()


def dump(document, path):
    """Write a document, which may have been edited, with its checksum."""
    files.write_json(path, to_jsonable(document), indent=None)
