// The result: candidates, best first, and for one of them where the model looked.

const SHOWN = 100; // candidates; more on demand

const result = { answer: null, sent: null, names: null, open: null, all: false };

/** Show an answer to what was sent: `sent` has the columns, `names` what their items are called. */
function showResult(answer, sent, names) {
  const items = (of) => JSON.stringify([of?.history, of?.candidates]);
  const same = items(result.sent) === items(sent);
  Object.assign(result, { answer, sent, names, open: same ? result.open : null, all: same && result.all });
  renderResult();
}

/** Candidate indexes, best first; of equals the earlier first, as the server ranks. */
function order(probabilities) {
  return probabilities.map((_, at) => at).sort((one, other) => probabilities[other] - probabilities[one] || one - other);
}

function renderResult() {
  const { answer, sent, open, all } = result;
  const ranked = order(answer.probabilities);
  const shown = all ? ranked : ranked.slice(0, SHOWN);
  const focused = document.activeElement?.closest?.(".row")?.dataset.candidate;
  $("empty").hidden = true;
  $("result-note").textContent = `request ${answer.request_id} · model ${answer.model.name} ${answer.model.version}`;
  const best = answer.ranking?.length ?? ranked.length;
  const rows = shown.flatMap((candidate, place) => [
    ...(place === best ? [el("li", { class: "beyond" }, `Beyond top_k = ${sent.topK}`)] : []),
    rankRow(candidate, place, candidate === open),
  ]);
  $("ranking").replaceChildren(...rows);
  $("more").hidden = shown.length === ranked.length;
  $("more").textContent = `Show the other ${ranked.length - shown.length}`;
  if (focused !== undefined) $("ranking").querySelector(`.row[data-candidate="${focused}"]`)?.focus({ preventScroll: true });
}

function rankRow(candidate, place, open) {
  const probability = result.answer.probabilities[candidate];
  const { name, details } = result.names.candidates[candidate];
  const row = el(
    "button",
    {
      type: "button",
      class: "row",
      "data-candidate": candidate,
      "aria-expanded": String(open),
      "aria-controls": open ? "explanation" : null,
      title: `${name}${details && ` · ${details}`}`,
      onclick: () => toggle(candidate),
    },
    el("span", {}, String(place + 1)),
    el("span", { class: "what" }, el("span", {}, name), " ", el("small", {}, details)),
    el("span", { class: "bar", "aria-hidden": "true" }, el("span", { "--share": `${100 * probability}%` })),
    el("span", { class: "value" }, probability.toFixed(4)),
    el("span", { class: "turn", "aria-hidden": "true" }),
  );
  return el("li", { class: open ? "open" : null }, row, ...(open ? [explanation(candidate)] : []));
}

function toggle(candidate) {
  result.open = result.open === candidate ? null : candidate;
  renderResult();
}

function explanation(candidate) {
  const { answer, sent } = result;
  const say = (text) => el("p", { class: "quiet" }, text);
  const box = (...children) => el("div", { id: "explanation", class: "explanation" }, ...children);
  const attention = answer.attention;
  if (!sent.explain) return box(say("Tick explain and score again to see which history items drew attention."));
  if (!attention) return box(say("This model does not say where it looked."));
  const at = attention.candidates ? attention.candidates.indexOf(candidate) : candidate;
  if (at < 0) return box(say(`Not explained: of this request the server explains ${attention.candidates.length} candidates. With top_k, they are the best.`));
  if (!attention.ids[at].length && !attention.tags[at].length) return box(say("The history is empty: there was nothing to look at."));
  return box(
    ...without(candidate, at),
    ...strip("ids", attention.ids[at], result.names.ids),
    ...strip("tags", attention.tags[at], result.names.tags),
    el(
      "p",
      { class: "caveat" },
      "Attention says where the model looked, not what caused the score",
      attention.without ? "; the score without the item it looked at most is one test of that." : ".",
    ),
  );
}

/** The counterfactual: what the candidate would score with the most attended item gone. */
function without(candidate, at) {
  const { attention, probabilities } = result.answer;
  const [removed, score] = [attention.removed?.[at] ?? null, attention.without?.[at] ?? null];
  if (removed === null || score === null) return [];
  const change = score.toFixed(4) - probabilities[candidate].toFixed(4); // of what stands there
  const sign = change < 0 ? "−" : "+";
  const name = result.names.ids[result.names.ids.length - attention.ids[at].length + removed];
  return [
    el(
      "p",
      { class: "without" },
      `Without ${name}: `,
      el("b", {}, score.toFixed(4)),
      " ",
      el("span", {}, `(${sign}${Math.abs(change).toFixed(4)})`),
    ),
  ];
}

/** A heat strip: the model keeps the newest of a long history, so that weights belong to the last names. */
function strip(column, weights, names) {
  if (!weights.length) return [];
  const kept = names.slice(names.length - weights.length);
  const most = Math.max(...weights);
  const alone = weights.indexOf(most) === weights.lastIndexOf(most);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const cells = weights.map((weight, at) =>
    el(
      "li",
      { class: alone && weight === most ? "most" : null, title: `${kept[at]}: ${weight}`, "data-weight": weight, "--heat": `${most > 0 ? (100 * Math.max(weight, 0)) / most : 0}%` },
      el("b", {}, weight.toFixed(3)),
      el("span", {}, kept[at]),
    ),
  );
  const cut = names.length - weights.length;
  const note = `${cut ? `newest ${weights.length} of ${names.length}, ` : ""}oldest first, sum ${sum.toFixed(2)}`;
  return [
    el("div", { class: "strip-head" }, el("h3", {}, `Attention to history ${column}`), el("span", {}, note)),
    el("ol", { class: "strip", "aria-label": `Attention to history ${column}` }, ...cells),
  ];
}

/** Show an error as the API gives it, or one of the way there. */
function showError({ code, message, details }) {
  const rows = Object.entries(details).filter(([, value]) => value);
  $("error").replaceChildren(
    el(
      "div",
      { class: "failure" },
      el("p", {}, el("strong", {}, code), ` ${message}`),
      el("dl", {}, ...rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
    ),
  );
  if (result.answer) $("result-note").textContent = "below: the last answer";
}
