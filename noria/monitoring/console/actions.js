"use strict";
// What acts sends JSON to the API, after asking back; what comes back is said in the same dialog.
const dialog = document.getElementById("dialog");

function element(name, text, attributes) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  return Object.assign(made, attributes || {});
}

function show(...parts) {
  dialog.replaceChildren(...parts);
  if (!dialog.open) dialog.showModal();
}

function say(title, text, after) {
  const close = element("button", "Close", { type: "button", onclick: () => { dialog.close(); after && after(); } });
  const buttons = element("div", "", { className: "buttons" });
  buttons.append(close);
  show(element("h3", title), ...text.filter(Boolean).map((line) => element("p", line)), buttons);
}

function ask(source, body) {
  const why = element("input", "", { placeholder: "for the audit trail (may be empty)", maxLength: 500 });
  const label = element("label");
  label.append(element("span", "Why?"), why);
  const buttons = element("div", "", { className: "buttons" });
  const go = element("button", source.dataset.ask.split("?")[0].split(" ")[0], { type: "button" });
  if (source.classList.contains("danger")) go.className = "danger";
  buttons.append(element("button", "Cancel", { type: "button", onclick: () => dialog.close() }), go);
  go.onclick = () => {
    go.disabled = true;
    go.textContent = "…";
    send(source.dataset.post, "why" in source.dataset && why.value ? { ...body, why: why.value } : body);
  };
  why.onkeydown = (event) => { if (event.key === "Enter") go.onclick(); };
  show(element("h3", source.dataset.ask), ...("why" in source.dataset ? [label] : []), buttons);
}

async function send(address, body) {
  try {
    const answer = await fetch(address, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    });
    const told = await answer.json();
    if (!answer.ok) return say("That didn't work", [told.detail, told.hint]);
    if (told.key) {
      const text = ["Keep it now: it is not stored, and can't be shown again.",
        told.first && "Requests to this project's servers need a key from now on, and so does this console: one with the scope admin."];
      say("The key of " + told.name, text, () => location.reload());
      dialog.insertBefore(element("pre", told.key), dialog.children[1]);
      return;
    }
    location.reload();
  } catch (error) {
    say("The console doesn't answer", [String(error)]);
  }
}

const kinds = {
  number: Number, text: String, share: (text) => Number(text) / 100,
  list: (text) => text.split(/[\s,]+/).filter(Boolean),
  shares: (text) => text.split(/[\s,%]+/).filter(Boolean).map((part) => Number(part) / 100),
  json: JSON.parse,
};

function fields(form) {
  const body = {};
  for (const field of form.elements) {
    if (!field.name || field.value === "" || (field.type === "checkbox" && !field.checked)) continue;
    const value = (kinds[field.dataset.kind] || kinds.text)(field.value);
    if (field.type === "checkbox") (body[field.name] ||= []).push(value);
    else if (field.dataset.kind === "json") Object.assign(body, value);
    else body[field.name] = value;
  }
  return body;
}

document.addEventListener("click", (event) => {
  const source = event.target.closest("button[data-post]");
  if (source) ask(source, JSON.parse(source.dataset.body));
});
document.addEventListener("submit", (event) => {
  const source = event.target.closest("form[data-post]");
  if (!source) return;
  event.preventDefault();
  ask(source, fields(source));
});

// A live page is fetched again every few seconds, unless somebody is at work on it.
setInterval(async () => {
  const main = document.querySelector("main[data-live]");
  if (!main || dialog.open || document.hidden || main.contains(document.activeElement) || String(getSelection())) return;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const text = await answer.text();  // its style is left out: the policy of this page would refuse the other's nonce
    const part = text.slice(text.indexOf("<main"), text.lastIndexOf("</main>") + 7);
    const fresh = new DOMParser().parseFromString(part, "text/html").querySelector("main");
    const open = [...main.querySelectorAll("details")].map((one) => one.open);
    fresh.querySelectorAll("details").forEach((one, at) => { one.open = open[at] || false; });
    if (!dialog.open) main.replaceWith(fresh);
  } catch { /* the next time may go better */ }
}, 4000);
