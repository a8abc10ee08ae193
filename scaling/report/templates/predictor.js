"use strict";
// `scaling predict FIT --flops C [--inference-tokens T]` in the browser: N*, D* and L* as powers of C, intervals as the central
// percentiles of the fit's own draws or the spread of the combined laws, counts as Python prints them. What is said here is said in scaling/predict/predict.py first.
(() => {
  const fit = JSON.parse(document.getElementById("predictor-data").textContent);
  const at = (id) => document.getElementById("predict-" + id);
  const numbers = (powers) => Object.fromEntries(Object.entries(powers).map(([name, value]) => [name, Array.isArray(value) ? value.map(Number) : Number(value)]));
  const FAR_DECADES = 0.3, TESTED_DECADES = 1.5, INSIDE = 0.05, MAX_SIZE_FACTOR = 4; // as predict/predict.py and report/summary.py have them
  const SPAN = Math.log(1e4), POINTS = 401, PASSES = 8, NARROWING = 50; // as predict/iso_loss.py has them
  const FORWARD = 2; // FLOPs a parameter and token when a model is used
  const SUFFIXES = { "": 1, K: 1e3, M: 1e6, B: 1e9, G: 1e9, T: 1e12, P: 1e15, E: 1e18 };
  const COUNT = /^\s*([+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([kKmMbBgGtTpPE]?)\s*$/;

  // ---- numbers as Python reads and prints them

  const parsed = (text) => {
    const match = COUNT.exec(text);
    if (!match) throw new Error(`"${text.trim()}" is not a number; write it as 1e13 or "10T" (suffixes K, M, B, T, P, E)`);
    const value = Number(match[1].replaceAll("_", "")) * SUFFIXES[match[2].toUpperCase()];
    if (!(value > 0 && value < Infinity)) throw new Error(`"${text.trim()}" is not a positive finite number`);
    if (value > 1e30) throw new Error(`"${text.trim()}" is above 1e30`);
    return value;
  };

  // the first `keep` of exact decimal digits, rounded half to even; JavaScript itself rounds half up
  const rounded = (digits, keep) => {
    const [head, rest] = [BigInt(digits.slice(0, keep) || "0"), digits.slice(keep)];
    const half = "5".padEnd(rest.length, "0");
    return head + (rest > half || (rest === half && head % 2n === 1n) ? 1n : 0n);
  };

  // [digits, exponent]: digits[0].digits[1..] x 10^exponent
  const significant = (value, count) => {
    const [mantissa, exponent] = value.toExponential(100).split("e");
    const digits = String(rounded(mantissa.replace(".", ""), count));
    return digits.length > count ? [digits.slice(0, count), Number(exponent) + 1] : [digits.padEnd(count, "0"), Number(exponent)];
  };

  const pointed = (digits, decimals) => {
    const padded = digits.padStart(decimals + 1, "0");
    return decimals > 0 ? `${padded.slice(0, -decimals)}.${padded.slice(-decimals)}` : padded;
  };

  const fixed = (value, decimals) => {
    const [whole, fraction] = Math.abs(value).toFixed(100).split(".");
    return (value < 0 ? "-" : "") + pointed(String(rounded(whole + fraction, whole.length + decimals)), decimals);
  };

  const power = (digits, exponent) => {
    const size = String(Math.abs(exponent)).padStart(2, "0");
    return `${pointed(digits, digits.length - 1)}e${exponent < 0 ? "-" : "+"}${size}`;
  };

  // Python's {value:.{count}g}
  const general = (value, count) => {
    if (value === 0 || !Number.isFinite(value)) return Number.isNaN(value) ? "nan" : String(value).replace("Infinity", "inf");
    const [digits, exponent] = significant(Math.abs(value), count);
    const bare = digits.replace(/0+$/, "");
    const sign = value < 0 ? "-" : "";
    if (exponent < -4 || exponent >= count) return sign + power(bare, exponent);
    if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${bare}`;
    return sign + pointed(bare.padEnd(exponent + 1, "0"), Math.max(0, bare.length - 1 - exponent));
  };

  const flopsText = (value) => general(value, 3).replace("e+0", "e").replace("e+", "e");

  const countText = (value) => {
    const unit = [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]].find(([, scale]) => Math.abs(value) >= scale * 0.9995);
    return unit && Math.abs(value) < 1e15 ? general(value / unit[1], 3) + unit[0] : general(value, 3);
  };

  const roughText = (value) => {
    if (value === 0 || !Number.isFinite(value)) return general(value, 6);
    const exponent = Math.floor(Math.log10(Math.abs(value)));
    if (exponent > -5 && exponent < 6) return fixed(value, Math.max(0, 2 - exponent));
    const [digits, tens] = significant(Math.abs(value), 3);
    return (value < 0 ? "-" : "") + power(digits, tens).replace("e+0", "e").replace("e-0", "e-").replace("e+", "e");
  };

  const TEXT = { n_params: countText, tokens: countText, tokens_per_param: roughText, loss: roughText };

  // ---- the fit: document.interval, Frontier, EqualLoss and Cost of scaling/fit

  const quantile = (sorted, share) => {
    const place = share * (sorted.length - 1), below = Math.floor(place), part = place - below;
    const low = sorted[below], high = sorted[Math.min(below + 1, sorted.length - 1)];
    return part < 0.5 ? low + (high - low) * part : high - (high - low) * (1 - part);
  };

  const interval = (value, draws) => {
    const finite = Float64Array.from(draws).filter(Number.isFinite).sort();
    if (finite.length < 2 || !Number.isFinite(value)) return { value, lo: null, hi: null };
    const [lo, hi] = [(1 - fit.ci) / 2, (1 + fit.ci) / 2].map((share) => quantile(finite, share));
    return { value, lo: Math.min(lo, value), hi: Math.max(hi, value) };
  };

  const { c0, p, planned } = fit.cost, COST_PASSES = 6; // as fit/frontier/frontier.py has them
  // [c0, p] of C = c0 N^p D for models of about n parameters: between counted models, in logs
  const costAt = (n) => {
    if (!planned) return [c0, p];
    const { log_n: knots, log_flops, p: slopes } = planned, last = knots.length - 1;
    const near = Math.min(Math.max(Math.log(n), knots[0]), knots[last]);
    const above = Math.max(1, knots.findIndex((knot) => knot >= near)), below = above - 1;
    const share = (near - knots[below]) / (knots[above] - knots[below]);
    const between = (values) => values[below] + share * (values[above] - values[below]);
    const slope = between(slopes);
    return [Math.exp(between(log_flops) - slope * near), slope];
  };
  const flopsOf = (n, d) => {
    const [factor, slope] = costAt(n);
    return factor * Math.pow(n, slope) * d;
  };
  const best = numbers(fit.frontier);
  const draws = fit.draws && numbers(fit.draws);
  if (draws && !draws.b) { // C = c0 N^p D: what N* leaves is D*
    draws.b = draws.a.map((a) => 1 - p * a);
    draws.log_d = draws.log_n.map((logN) => -Math.log(c0) - p * logN);
  }
  // Frontier.at_cost
  const atCost = (powers, [factor, slope]) => {
    let { a, log_n: logN, log_gap: logGap, gamma } = powers;
    if (powers.beta !== undefined) {
      const oldP = (1 - powers.b) / a, ratio = 1 / a - oldP, kAlpha = gamma / a, k = kAlpha / (ratio * powers.beta);
      const logG = logN - a * (powers.log_d + oldP * logN), moved = 1 / (ratio + slope);
      const size = moved * (logG / a + Math.log(oldP / slope) / powers.beta - Math.log(factor));
      logGap += kAlpha * (logN - size) + k * (Math.log1p(ratio / slope) - Math.log1p(ratio / oldP));
      [a, logN, gamma] = [moved, size, kAlpha * moved];
    }
    return { ...powers, a, log_n: logN, log_gap: logGap, gamma, b: 1 - slope * a, log_d: -Math.log(factor) - slope * logN };
  };

  const along = (columns, logC, i) => {
    const own = i === undefined ? columns : Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[i]]));
    const size = (powers) => Math.exp(powers.log_n + powers.a * logC);
    let powers = own;
    if (planned) for (let pass = 0; pass < COST_PASSES; pass++) powers = atCost(own, costAt(size(powers)));
    const n = size(powers), d = Math.exp(powers.log_d + powers.b * logC);
    const loss = powers.gamma === undefined ? NaN : powers.floor + Math.exp(powers.log_gap - powers.gamma * logC);
    return { n_params: n, tokens: d, tokens_per_param: d / n, loss };
  };

  // the combination of laws: the weighted mean of the candidates' logs, and their spread (scaling/fit/combination.py)
  const candidates = fit.combination?.candidates.map((each) => ({ ...each, powers: numbers(each.powers) }));
  const combined = (logC, quantity, name) => {
    const rows = candidates.map(({ powers, weights }) => [weights[quantity], Math.log(along(powers, logC)[name])])
      .filter(([weight, log]) => weight > 0 && Number.isFinite(log));
    const sum = (term) => rows.reduce((total, row) => total + term(...row), 0);
    const whole = sum((weight) => weight), mean = sum((weight, log) => weight * log) / whole;
    const spread = Math.sqrt(sum((weight, log) => weight * (log - mean) ** 2) / whole);
    const { parts, quantile, largest } = fit.combination, [share, noise, growth] = parts[quantity];
    const decades = Math.max(0, (logC - Math.log(largest)) / Math.LN10);
    const half = quantile * Math.hypot(share * spread, noise, growth * decades);
    return { value: Math.exp(mean), lo: Math.exp(mean - half), hi: Math.exp(mean + half) };
  };

  const optimum = (flops) => {
    const logC = Math.log(flops), value = along(best, logC);
    if (candidates) {
      const n = combined(logC, "n_star", "n_params"), tokens = (size) => flops / flopsOf(size, 1);
      const swapped = (form) => ({ value: form(n.value), lo: form(n.hi), hi: form(n.lo) });
      return { n_params: n, tokens: swapped(tokens), tokens_per_param: swapped((size) => tokens(size) / size), loss: combined(logC, "loss_star", "loss") };
    }
    const drawn = draws ? draws.a.map((_, i) => along(draws, logC, i)) : [];
    return Object.fromEntries(Object.keys(TEXT).map((name) => [name, interval(value[name], drawn.map((each) => each[name]))]));
  };

  // the N that costs least to train and to serve at the loss of (n, d); D follows from the law (Sardana 2024, eq. 3)
  const withDemand = (n, d, demand) => {
    let { a, alpha, b, beta } = fit.sameLoss;
    if (candidates) [a, b] = [costAt(n)[1] * beta * Math.pow(n, alpha), alpha * Math.pow(d, beta)]; // (n, d) costs least
    const whole = a * Math.pow(n, -alpha) + b * Math.pow(d, -beta);
    const tokens = (size) => {
      const rest = whole - a * Math.pow(size, -alpha);
      return rest > 0 ? Math.pow(rest / b, -1 / beta) : NaN;
    };
    const total = (size) => flopsOf(size, tokens(size)) + FORWARD * size * demand;
    let centre = Math.log(n), span = SPAN;
    for (let pass = 0; pass < PASSES; pass++, span /= NARROWING) {
      let least = Infinity, nearest = -span;
      for (let i = 0; i < POINTS; i++) {
        const away = -span + (i * 2 * span) / (POINTS - 1), cost = total(Math.exp(centre + away));
        if (cost < least) [least, nearest] = [cost, away];
      }
      centre += nearest;
    }
    const size = Math.exp(centre);
    return { n_params: size, tokens: tokens(size), flops_total: total(size), saved_fraction: 1 - total(size) / total(n) };
  };

  // ---- in words, as the command line has them

  const outside = (measured, subject, onlyRatio, said) => {
    const measures = [["n_params", "parameters", 1.01], ["tokens", "tokens", 1.01], ["tokens_per_param", "tokens per parameter", 1.05]];
    for (const [name, label, slack] of measures.slice(onlyRatio ? 2 : 0)) {
      const ends = fit.range[name], value = measured[name].value;
      if (ends && Number.isFinite(value) && !(ends[0] / slack <= value && value <= ends[1] * slack))
        said.push(`${subject}${countText(value)} ${label} lie outside the data (${countText(ends[0])} to ${countText(ends[1])})`);
    }
  };

  const tooFar = (decades) => {
    const tested = fit.combination?.tested;
    if (decades > TESTED_DECADES && candidates) return [`forecasts were tested up to ${TESTED_DECADES} decades beyond the data: farther out the interval is a guess`];
    const held = "on other runs nine of ten such 95 % intervals held";
    if (Number.isFinite(tested) && decades > tested + INSIDE) return [tested < INSIDE ? `these runs have tested no forecast as far as this: ${held}`
      : `these runs test forecasts over a factor of ${flopsText(10 ** tested)} in compute, and this one spans ${flopsText(10 ** decades)}: ${held}`];
    return decades > FAR_DECADES && draws ? ["the interval does not cover errors in the law's form: on other runs seven of ten such 95 % intervals held"] : [];
  };

  // summary.light: that of the fit, until the answer is too wide or too far out
  const light = (flops, { n_params: { lo, hi } }) => {
    const [level] = fit.light, [far] = tooFar(Math.log10(flops / fit.range.flops[1]));
    if (level !== "not yet" && hi / lo > MAX_SIZE_FACTOR) return ["not yet", hi / lo < Infinity
      ? `the best size is known within a factor of ${general(hi / lo, 2)} only`
      : `the interval of the best size has no ${lo > 0 ? "upper" : "lower"} end`];
    return level === "trust it" && far ? ["with care", far] : fit.light;
  };

  const warnings = (flops, answered, least) => {
    const [low, high] = fit.range.flops;
    const decades = Math.max(0, Math.log10(flops / high));
    const said = [...fit.warnings];
    if (decades > INSIDE) said.push(`${flopsText(10 ** decades)} times the compute of the largest run (${flopsText(flops)} against ${flopsText(high)} FLOPs)`);
    if (flops < low * 0.99) said.push(`${flopsText(low / flops)} times below the compute of the smallest run (${flopsText(flops)} against ${flopsText(low)} FLOPs)`);
    said.push(...tooFar(decades));
    outside(answered, "", decades > INSIDE, said);
    if (least) {
      const [size, paid] = [least.n_params, least.tokens];
      outside({ n_params: { value: size }, tokens: { value: paid }, tokens_per_param: { value: paid / size } }, "the size that is cheapest to serve: ", false, said);
    }
    const [n, d] = [answered.n_params.value, answered.tokens.value];
    if (n < 1 || d < 1) said.push(`no model: N* = ${general(n, 3)} and D* = ${general(d, 3)} are outside the law's range`);
    return said;
  };

  const shown = (name, entry) => {
    const text = (value) => (value === null || !Number.isFinite(value) ? "–" : TEXT[name](value));
    return { value: text(entry.value), lo: text(entry.lo), hi: text(entry.hi), bare: entry.lo === null && entry.hi === null };
  };

  const tile = (place, { value, lo, hi, bare }) => {
    place.textContent = value;
    if (!bare) place.appendChild(document.createElement("small")).textContent = `${lo} to ${hi}`;
  };

  const sentence = (flops, texts) => {
    const [n, d, ratio, loss] = Object.keys(TEXT).map((name) => {
      const { value, lo, hi, bare } = texts[name];
      return bare ? value : `${value} [${lo}, ${hi}]`;
    });
    return `For ${flopsText(flops)} FLOPs: ${n} parameters on ${d} tokens, ${ratio} tokens per parameter, loss ${loss}.`;
  };

  const servedSentence = (demand, texts) =>
    ` With ${countText(demand)} tokens served, ${texts.n_params} parameters on ${texts.tokens} tokens cost least at that loss: ` +
    `${texts.flops_total} FLOPs in all, ${texts.saved_fraction} less than with the compute-optimal size.`;

  // ---- the page

  const budget = at("budget"), budgetSlider = at("budget-slider"), demand = at("demand"), demandSlider = at("demand-slider");
  let speaking;

  const say = (text) => { // a slider on its way would else be read aloud step by step
    clearTimeout(speaking);
    speaking = setTimeout(() => { at("said").textContent = text; }, 250);
  };

  const refuse = (input, reason) => {
    input.setAttribute("aria-invalid", "true");
    Object.assign(at("notice"), { textContent: reason, hidden: false });
    at("answer").hidden = true;
    clearTimeout(speaking);
    at("said").textContent = "";
  };

  const isNone = (text) => ["", "0", "0.0"].includes(text.trim());

  const asked = () => {
    let input = budget;
    try {
      const flops = parsed(budget.value);
      if (!demand || isNone(demand.value)) return { flops, served: 0 };
      input = demand;
      return { flops, served: parsed(demand.value) };
    } catch (error) {
      refuse(input, error.message);
      return null;
    }
  };

  const served = (flops, answered, tokens) => {
    const [n, d] = [answered.n_params.value, answered.tokens.value];
    if (n < 1 || d < 1) return { notice: `N* = ${general(n, 3)} and D* = ${general(d, 3)} are no sizes to start from; ask for more FLOPs` };
    const least = withDemand(n, d, tokens);
    return {
      least,
      n_params: countText(least.n_params), tokens: countText(least.tokens), flops_total: flopsText(least.flops_total),
      saved_fraction: `${general(100 * Math.round(1e12 * least.saved_fraction) / 1e12, 2)} %`,
    };
  };

  const answer = () => {
    for (const input of [budget, demand]) input?.removeAttribute("aria-invalid");
    const question = asked();
    if (!question) return;
    const { flops, served: tokens } = question;
    const answered = optimum(flops);
    const texts = Object.fromEntries(Object.keys(TEXT).map((name) => [name, shown(name, answered[name])]));
    const inUse = tokens ? served(flops, answered, tokens) : null;
    if (inUse?.notice) return refuse(demand, inUse.notice);
    at("notice").hidden = true;
    at("answer").hidden = false;
    for (const place of document.querySelectorAll("[data-measure]")) tile(place, texts[place.dataset.measure]);
    at("served").hidden = !inUse;
    if (inUse) for (const place of document.querySelectorAll("[data-served]")) place.textContent = inUse[place.dataset.served];
    const left = [];
    outside(answered, "", false, left);
    const inside = flops >= fit.range.flops[0] * 0.99 && flops <= fit.range.flops[1] && !left.length ? " This lies within the budgets, sizes and tokens per parameter that were trained." : "";
    say(sentence(flops, texts) + (inUse ? servedSentence(tokens, inUse) : "") + inside);
    const [level, why] = light(flops, answered), strong = Object.assign(document.createElement("strong"), { textContent: level[0].toUpperCase() + level.slice(1) });
    at("light").className = `light ${{ "trust it": "trust", "with care": "care", "not yet": "not_yet" }[level]}`;
    at("light").replaceChildren(strong, `: ${why}.`);
    at("warnings").replaceChildren(...warnings(flops, answered, inUse?.least).filter((text) => text !== why).map((text) => Object.assign(document.createElement("li"), { textContent: text })));
    at("command").textContent = `${fit.command} ${word(budget)}${inUse ? ` --inference-tokens ${word(demand)}` : ""}`;
  };

  // one word of a command line: "10 T" is 10T
  const word = (input) => input.value.replace(/\s+/g, "");

  // the slider follows the text, and the text is what counts
  const follow = (input, slider, none) => {
    let log = NaN;
    if (!none || !isNone(input.value)) try { log = Math.log10(parsed(input.value)); } catch { return; }
    slider.value = Number.isNaN(log) ? slider.min : log;
    slider.setAttribute("aria-valuetext", Number.isNaN(log) ? "none" : input.value.trim());
  };

  const connect = (input, slider, none) => {
    input.addEventListener("input", () => { follow(input, slider, none); answer(); });
    slider.addEventListener("input", () => {
      const least = none && slider.value === slider.min;
      input.value = least ? "" : flopsText(10 ** Number(slider.value));
      slider.setAttribute("aria-valuetext", least ? "none" : input.value);
      answer();
    });
    follow(input, slider, none);
  };

  budget.value = flopsText(fit.start);
  connect(budget, budgetSlider, false);
  if (demand) connect(demand, demandSlider, true);
  document.getElementById("predict").hidden = false;
  answer();
})();
