// The document: finding elements, making them, and what the browser may refuse.

const $ = (id) => document.getElementById(id);

/** Make an element: el("button", { class: "x", onclick }, "text", child). */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) made.style.setProperty(name, value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Say something to those who listen to the page. */
function announce(text) {
  $("status").textContent = text;
}

/** What a browser without storage for this page forgets. */
const stored = {
  get(storage, key) {
    try {
      return globalThis[storage].getItem(`dinserve.${key}`);
    } catch {
      return null;
    }
  },
  set(storage, key, value) {
    try {
      globalThis[storage].setItem(`dinserve.${key}`, value);
    } catch {
      // then it does
    }
  },
};

/** Copy, also where the page came over plain HTTP and the clipboard is closed to it. */
async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = el("textarea", { class: "hidden", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    button.focus();
  }
  const label = (button.dataset.label ??= button.textContent);
  button.textContent = "Copied";
  announce("Copied");
  setTimeout(() => (button.textContent = label), 1500);
}

/** Call once things have been quiet for a while. */
function debounced(wait_ms, act) {
  let timer;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => act(...given), wait_ms);
  };
}
