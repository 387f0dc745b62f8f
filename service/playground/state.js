// State: what is being asked, what the server is, and the link that carries an example.

// The README's: somebody who liked Toy Story, Toy Story 2, Monsters, Inc. and Finding Nemo.
const EXAMPLE = "#history=1:3,3114:3,4886:3,6377:3&candidates=8961:2,296:6,1258:12,318:7";

const server = { dtypes: { id: "int64", tag: "int64" }, catalog: false, asksToken: false };
const known = new Map(); // id -> {tag, title} of the catalog
// An item may lack its id or its tag: a history's two columns may differ in length. With a catalog, an empty tag is the
// catalog's.
const asked = { history: [], candidates: [], topK: "", explain: true };

const base = location.pathname.replace(/\/?$/, "/"); // the page may stand below a root path

function tagOf({ id, tag }) {
  return tag || (known.get(id)?.tag ?? "");
}

function nameOf(id, tag = "") {
  return known.get(id)?.title || (id ? `id ${id}` : `tag ${tag}`);
}

/** The columns of a part: without tags where the catalog has them all. */
function columnsOf(items) {
  const ids = items.map((item) => item.id).filter(Boolean);
  if (server.catalog && items.every((item) => !item.tag)) return { ids };
  return { ids, tags: items.map(tagOf).filter(Boolean) };
}

function requestNow() {
  return { ...asked, history: columnsOf(asked.history), candidates: columnsOf(asked.candidates) };
}

/** Make items of two columns that may differ in length. */
function itemsOf(ids, tags) {
  return Array.from({ length: Math.max(ids.length, tags.length) }, (_, at) => ({ id: ids[at] ?? "", tag: tags[at] ?? "" }));
}

function writeLink() {
  const write = (items) => items.map((each) => [each.id, tagOf(each)].map(encodeURIComponent).join(":")).join(",");
  const more = (asked.topK ? `&top_k=${encodeURIComponent(asked.topK)}` : "") + (asked.explain ? "" : "&explain=0");
  return `#history=${write(asked.history)}&candidates=${write(asked.candidates)}${more}`;
}

/** Take what a link carries; whether it carried anything. */
function readLink(hash) {
  const fields = new Map(hash.slice(1).split("&").map((field) => field.split("=", 2)));
  if (!fields.has("candidates")) return false;
  const read = (text = "") =>
    text.split(",").filter(Boolean).map((piece) => {
      const [id, tag = ""] = piece.split(":", 2).map(decodeURIComponent);
      return { id, tag };
    });
  try {
    const [history, candidates] = [read(fields.get("history")), read(fields.get("candidates"))];
    const topK = decodeURIComponent(fields.get("top_k") ?? "");
    Object.assign(asked, { history, candidates, topK, explain: fields.get("explain") !== "0" });
    return true;
  } catch {
    return false; // not of this page's making
  }
}

function headers() {
  const token = $("token").value.trim();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function askCatalog(parameters, signal) {
  if (!server.catalog || (server.asksToken && !$("token").value.trim())) return [];
  const response = await fetch(`${base}catalog?${new URLSearchParams(parameters)}`, { headers: headers(), signal });
  if (!response.ok) return [];
  const { items } = readCatalog(await response.text());
  for (const { id, tag, title } of items) known.set(id, { tag, title });
  return items;
}

/** Learn the titles of what is asked, and drop the tags that the catalog has too. */
async function nameItems() {
  const items = [...asked.history, ...asked.candidates];
  const ids = new Set(items.map((item) => item.id));
  const unknown = [...ids].filter((id) => id && !known.has(id) && isValid(id, server.dtypes.id));
  for (let at = 0; at < unknown.length; at += 100) await askCatalog({ ids: unknown.slice(at, at + 100).join(",") });
  for (const item of items) if (known.get(item.id)?.tag === item.tag) item.tag = "";
}
