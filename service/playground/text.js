// Text: what is sent and read, written by hand. An int64 does not survive JavaScript's numbers, so that ids and tags stay
// strings from the field to the wire.

/** Write one id or tag as JSON: bare where the model wants an integer and this is one; else the server shall say. */
function writeValue(value, dtype) {
  return dtype === "int64" && /^-?(0|[1-9]\d*)$/.test(value) ? value : JSON.stringify(value);
}

/** Whether the server would take a value: it refuses to look up ids of which one is none. */
function isValid(value, dtype) {
  return dtype !== "int64" || (/^-?\d{1,19}$/.test(value) && BigInt.asIntN(64, BigInt(value)) === BigInt(value));
}

function writeColumns({ ids, tags }, dtypes) {
  const write = (name, values, dtype) => `"${name}": [${values.map((each) => writeValue(each, dtype)).join(", ")}]`;
  const columns = [write("ids", ids, dtypes.id)];
  if (tags) columns.push(write("tags", tags, dtypes.tag));
  return `{${columns.join(", ")}}`;
}

/** Write the body of POST /score. */
function writeRequest({ history, candidates, topK, explain }, dtypes) {
  const lines = [`"history": ${writeColumns(history, dtypes)}`, `"candidates": ${writeColumns(candidates, dtypes)}`];
  if (topK) lines.push(`"top_k": ${writeValue(topK, "int64")}`);
  lines.push(`"explain": ${explain}`);
  return `{\n  ${lines.join(",\n  ")}\n}`;
}

/** Write the command that sends a body. A token is named, not told. */
function writeCurl(body, url, withToken) {
  const quoted = body.replaceAll("'", String.raw`'\''`);
  const token = withToken ? ' -H "Authorization: Bearer $DIN_TOKEN"' : "";
  return `curl -s '${url}' -H 'Content-Type: application/json'${token} -d '${quoted}'`;
}

/** Read what was typed or pasted: `id tag` a line, lists with commas, JSON arrays. Further words are tags without an id. */
function readItems(text) {
  const pieces = text.replace(/[[\]"']/g, " ").split(/[\n,;]+/);
  return pieces.flatMap((piece) => {
    const [id, tag = "", ...tags] = piece.trim().split(/\s+/);
    return id ? [{ id, tag }, ...tags.map((each) => ({ id: "", tag: each }))] : [];
  });
}

/** Read one column. */
function readColumn(text) {
  return text.split(/[\s,;[\]"']+/).filter(Boolean);
}

/** Read JSON whose ids and tags become strings. Inside a string the quotes would have a backslash, and not match. */
function readCatalog(text) {
  return JSON.parse(text.replace(/"(id|tag)":\s*(-?\d+)/g, '"$1":"$2"'));
}

/** Break an answer into lines: one for each member, and for each row of weights. */
function layOut(json) {
  let depth = 0;
  let inString = false;
  let text = "";
  for (let at = 0; at < json.length; at++) {
    const char = json[at];
    if (inString && char === "\\") text += char + json[++at];
    else {
      if (char === '"') inString = !inString;
      if (!inString && "}]".includes(char) && --depth === 0) text += "\n";
      text += char;
      if (!inString && "{[".includes(char) && ++depth === 1) text += "\n  ";
      if (!inString && char === "," && depth === 1) text += "\n  ";
    }
  }
  return text;
}

function readAnswer(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a proxy's page, perhaps
  }
}
