// The page: what is asked of whom, and when.

const TIMEOUT_MS = 30_000;
const REPEAT_MS = 1000;

const editors = {
  history: new Editor("history", "History", "oldest first", () => changed()),
  candidates: new Editor("candidates", "Candidates", "to be scored", () => changed()),
};
const tabs = ["Request", "Answer", "curl"];
let tab = "Request";
let answerText = "";
let scoring = false;

function body() {
  return writeRequest(requestNow(), server.dtypes);
}

// As text

function codeText() {
  if (tab === "Answer") return answerText;
  return tab === "curl" ? writeCurl(body(), new URL(`${base}score`, location).href, server.asksToken) : body();
}

function renderCode() {
  $("code").textContent = codeText() || "Press Score: the answer appears here.";
  $("code").setAttribute("aria-labelledby", `tab-${tab}`);
  for (const name of tabs) {
    $(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
    $(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
  }
}

function chooseTab(name) {
  tab = name;
  renderCode();
}

function walkTabs(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  chooseTab(tabs[(tabs.indexOf(tab) + by + tabs.length) % tabs.length]);
  $(`tab-${tab}`).focus();
}

// What is asked

function keepLink() {
  history.replaceState(null, "", writeLink());
}

const keepLinkSoon = debounced(300, keepLink); // browsers take only so many a second

function changed() {
  renderCode();
  keepLinkSoon();
}

function renderRequest() {
  $("top-k").value = asked.topK;
  $("explain").checked = asked.explain;
  for (const editor of Object.values(editors)) editor.render();
  renderCode();
}

async function ask(hash) {
  if (!readLink(hash)) return;
  renderRequest();
  await nameItems().catch(() => {});
  renderRequest();
}

async function randomExample() {
  const pick = (items, count) => items.map((item) => [Math.random(), item]).sort(([a], [b]) => a - b).slice(0, count).map(([, item]) => item);
  const items = server.catalog ? await randomItems().catch(() => []) : [];
  const value = (most, dtype, name) => (dtype === "int64" ? "" : name) + (1 + Math.floor(Math.random() * most));
  while (!server.catalog && items.length < 18)
    items.push({ id: value(9999, server.dtypes.id, "item-"), tag: value(18, server.dtypes.tag, "tag-") });
  const chosen = pick(items, 18);
  asked.history = chosen.slice(0, Math.floor(chosen.length * 0.55));
  asked.candidates = chosen.slice(asked.history.length);
  blame(null);
  renderRequest();
  changed();
}

/** Items of the catalog whose titles have some letters, chosen by chance. */
async function randomItems() {
  const letter = (of) => of[Math.floor(Math.random() * of.length)];
  const queries = Array.from({ length: 8 }, () => letter("bcdfghlmnprstw") + letter("aeiou"));
  const found = new Map();
  for (const query of [...queries, ..."aeiou"]) { // pairs for variety, single letters where the catalog is small
    if (found.size >= 60) break;
    for (const item of await askCatalog({ query, limit: 50 })) found.set(item.id, { id: item.id, tag: "" });
  }
  return [...found.values()];
}

// Scoring

async function score() {
  if (scoring) return;
  scoring = true;
  keepLink();
  $("score").setAttribute("aria-busy", "true");
  const sent = requestNow();
  const names = {
    candidates: asked.candidates.filter((item) => item.id).map((item) => ({ name: nameOf(item.id), details: detailsOf(item) })),
    ids: sent.history.ids.map((id) => nameOf(id)),
    tags: (sent.history.tags ?? asked.history.map(tagOf)).map((tag) => `tag ${tag}`),
  };
  try {
    await call(writeRequest(sent, server.dtypes), sent, names);
  } finally {
    scoring = false;
    $("score").removeAttribute("aria-busy");
    renderCode();
    if ($("repeat").checked) setTimeout(() => $("repeat").checked && score(), REPEAT_MS);
  }
}

function detailsOf(item) {
  const tag = tagOf(item);
  return [known.get(item.id)?.title && `id ${item.id}`, tag && `tag ${tag}`].filter(Boolean).join(" · ");
}

async function call(text, sent, names) {
  const started = performance.now();
  let response;
  try {
    response = await fetch(`${base}score`, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers() },
      body: text,
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    answerText = await response.text();
  } catch (error) {
    answerText = "";
    keep(null);
    setHealth("unreachable");
    const late = error.name === "TimeoutError";
    const message = late ? `The server has not answered within ${TIMEOUT_MS / 1000} seconds.` : "The server cannot be reached.";
    return fail({ code: late ? "timeout" : "network", message: `${message} Is it still running? Your example is kept: press Score to try again.`, details: {} });
  }
  const elapsed = performance.now() - started;
  const answer = readAnswer(answerText);
  answerText = answer ? layOut(answerText) : answerText;
  if (response.ok && answer) {
    blame(null);
    $("error").replaceChildren();
    showResult(answer, sent, names);
    showLatency(answer.latency_ms, elapsed);
    const [best] = order(answer.probabilities);
    announce(`${answer.probabilities.length} scored; best: ${names.candidates[best].name}, ${answer.probabilities[best].toFixed(4)}`);
    if ($("health").dataset.status !== "ok") askHealth();
    return;
  }
  keep(null);
  const { error, request_id } = answer ?? {};
  const details = {
    field: error?.field,
    status: String(response.status),
    "retry after": response.headers.get("retry-after") && `${response.headers.get("retry-after")} s`,
    request: request_id,
  };
  fail({ code: error?.code ?? `HTTP ${response.status}`, message: error?.message ?? "The answer is not the server's: a proxy's, perhaps.", details });
  blame(error ?? null);
}

function fail(problem) {
  if (problem.details.field === "Authorization") askToken();
  showError(problem);
}

/** Mark the field that an error names, or none. */
function blame(error) {
  const [part, ...rest] = (error?.field ?? "").split(/\.(.*)/s);
  for (const [name, editor] of Object.entries(editors)) {
    const path = name === part ? rest[0] ?? "" : undefined;
    if (path !== undefined || editor.wrong) editor.blame(path, error?.message);
  }
  $("top-k").setAttribute("aria-invalid", String(part === "top_k"));
  $("token").setAttribute("aria-invalid", String(part === "Authorization"));
}

// The server

function askToken() {
  server.asksToken = true;
  $("token-form").hidden = false;
}

function setHealth(status) {
  $("health").dataset.status = status;
  $("health").lastElementChild.textContent = status === "ok" ? "ready" : status;
}

async function askHealth() {
  try {
    setHealth((await (await fetch(`${base}health`)).json()).status);
  } catch {
    setHealth("unreachable");
  }
}

/** Learn from the API's own document whether there is a catalog, and whether scores ask for a token. */
async function askDocument() {
  const { info, paths } = await (await fetch(`${base}openapi.json`)).json();
  server.version = info.version;
  server.catalog = "/catalog" in paths;
  if (paths["/score"].post.security) askToken();
}

async function askModel() {
  const response = await fetch(`${base}model`);
  if (!response.ok) return setTimeout(() => askModel().catch(() => {}), 2000); // it loads
  const model = await response.json();
  server.dtypes = { id: model.features.id.dtype, tag: model.features.tag.dtype };
  $("about").textContent = `model ${model.name} ${model.version} · ${model.engine} engine · dinserve ${server.version ?? ""}`;
  askHealth();
  renderRequest();
}

// Light and dark

const dark = matchMedia("(prefers-color-scheme: dark)");

function showTheme() {
  const theme = stored.get("localStorage", "theme");
  if (theme) document.documentElement.dataset.theme = theme;
  $("theme").setAttribute("aria-pressed", String((theme ?? (dark.matches ? "dark" : "light")) === "dark"));
}

function turnTheme() {
  stored.set("localStorage", "theme", $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark");
  showTheme();
}

// Beginning

$("tabs").append(
  ...tabs.map((name) =>
    el("button", { id: `tab-${name}`, type: "button", role: "tab", "aria-controls": "code", onclick: () => chooseTab(name), onkeydown: walkTabs }, name),
  ),
);
$("theme").addEventListener("click", turnTheme);
dark.addEventListener("change", showTheme);
$("score").addEventListener("click", score);
$("repeat").addEventListener("change", () => $("repeat").checked && score());
$("random").addEventListener("click", randomExample);
$("link").addEventListener("click", () => copy(new URL(writeLink(), location).href, $("link")));
$("copy").addEventListener("click", () => copy(codeText(), $("copy")));
$("more").addEventListener("click", () => ((result.all = true), renderResult()));
$("top-k").addEventListener("input", () => ((asked.topK = $("top-k").value.trim()), changed()));
$("explain").addEventListener("change", () => ((asked.explain = $("explain").checked), changed()));
$("token").value = stored.get("sessionStorage", "token") ?? "";
$("token").addEventListener("change", async () => {
  stored.set("sessionStorage", "token", $("token").value);
  await nameItems().catch(() => {});
  renderRequest();
});
$("token-form").addEventListener("submit", (event) => (event.preventDefault(), score()));
addEventListener("hashchange", () => ask(location.hash));
addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  score();
});

showTheme();
askHealth();
if (!readLink(location.hash)) readLink(EXAMPLE);
renderRequest();
await askDocument().catch(() => {});
await askModel().catch(() => {});
await nameItems().catch(() => {});
renderRequest();
document.documentElement.dataset.ready = "";
