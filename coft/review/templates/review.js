"use strict";

// What is seen of the draft (draft.js), and what a click does.
const STEP = 60; // classes that are shown at a time
let shown = STEP;

// ------------------------------------------------------------------ what is seen

function make(tag, content = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(content)) {
    if (name === "text") element.textContent = value;
    else if (name === "click") element.addEventListener("click", value);
    else if (name === "change") element.addEventListener("change", value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const button = (text, label, click) => make("button", {type: "button", text, "aria-label": label, click});
const percent = share => share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`;

function pictures(indices, what) {
  const list = make("ul", {class: "pictures"});
  indices.forEach((index, i) => list.append(make("li", {}, make("img",
    {src: `picture/${index}`, alt: `image ${i + 1} of ${what}`, loading: "lazy", width: 96, height: 96}))));
  return list;
}

function card(item) {
  const article = make("article", {id: `card-${item.id}`});
  article.append(make("h3", {}, make("bdi", {id: `title-${item.id}`})));
  article.append(make("p", {class: "share", id: `share-${item.id}`}));
  const field = (kind, label, value, first) => make("div", {},
    make("label", {for: `${kind}-${item.id}`, text: label}),
    make("input", {id: `${kind}-${item.id}`, value, autocomplete: "off", spellcheck: "false",
      change: event => rename(item, event.target, first)}));
  article.append(make("div", {class: "names"}, field("name", "Name", called(item), true),
    field("synonyms", "Synonyms, with | between them", item.names.slice(1).join(" | "), false)));
  const actions = make("p", {class: "actions"});
  const add = (text, click) => actions.append(button(text, `${text.replace("…", "")} ${called(item)}`, click));
  add("Merge…", () => openMerge(item));
  if (item.of.length === 1 && !item.half) add("Split…", () => openSplit(item));
  add("Drop", () => drop(item));
  article.append(actions, pictures(item.images, called(item)));
  const summary = make("summary", {text: "What zero-shot CLIP assigns to it now"});
  const taken = make("details", {id: `taken-${item.id}`}, summary);
  taken.addEventListener("toggle", () => showShare(item));
  article.append(taken);
  return article;
}

function showTitle(item) {
  const title = $(`title-${item.id}`);
  if (title) title.textContent = called(item);
}

function showShare(item) {
  const line = $(`share-${item.id}`), details = $(`taken-${item.id}`);
  if (!line) return;
  line.replaceChildren(`${item.count.toLocaleString("en")} images after training · zero-shot ${percent(item.before)} → `,
    make("strong", {text: percent(item.share)}));
  if (!details.open) return;
  details.querySelector("ul, p")?.remove();
  const what = `what is taken for ${called(item)}`;
  details.append(item.taken.length ? pictures(item.taken, what) : make("p", {text: "No image."}));
}

function render() {
  const focused = document.activeElement?.id, text = $("filter").value.trim().toLowerCase();
  const chosen = draft.filter(item => item.names.some(name => name.toLowerCase().includes(text)));
  chosen.sort((a, b) => a.rank - b.rank);
  $("cards").replaceChildren(...chosen.slice(0, shown).map(card));
  if (!chosen.length) $("cards").append(make("p", {text: "No class name contains this."}));
  chosen.slice(0, shown).forEach(item => { showTitle(item); showShare(item); });
  $("more").hidden = chosen.length <= shown;
  $("class-count").textContent = draft.length;
  if (focused && $(focused)) $(focused).focus();
  renderSuggestions();
  sayChanges();
}

function isOpen(suggestion, number) {
  const item = cardOf(suggestion.label), other = cardOf(suggestion.other);
  const same = item && called(item) === run.classes[suggestion.label].names[0];
  return !settled.has(number) && same && (suggestion.other < 0 || other);
}

function renderSuggestions() {
  const numbered = run.suggestions.map((suggestion, number) => [suggestion, number]);
  const left = numbered.filter(([suggestion, number]) => isOpen(suggestion, number));
  $("suggestion-list").replaceChildren(...left.map(([suggestion, number]) => {
    const item = cardOf(suggestion.label), other = cardOf(suggestion.other), actions = make("p", {class: "actions"});
    const name = quoted(called(item)), rename = make("button", {type: "button", text: `Rename ${name}`, click: () => focusName(item)});
    if (other !== item) actions.append(rename);
    if (other === item) actions.append(make("button", {type: "button", text: `Split ${name}`, click: () => openSplit(item)}));
    else if (other) actions.append(make("button", {type: "button", text: `Merge ${name} into ${quoted(called(other))}`,
      click: () => merge(item, other)}));
    else actions.append(make("button", {type: "button", text: `Drop ${name}`, click: () => drop(item)}));
    if (other === item) actions.append(rename);
    actions.append(button("Keep", `Keep ${called(item)} as it is`, () => {
      change(() => settled.add(number));
      renderSuggestions();
      $("suggestion-list").querySelector("button")?.focus();
    }));
    return make("li", {}, make("p", {}, make("bdi", {text: suggestion.text})), actions);
  }));
  $("suggestion-count").textContent = left.length;
  $("no-suggestion").hidden = left.length > 0;
}

function focusName(item) {
  if (!$(`name-${item.id}`)) { // beyond those that are shown, or filtered away
    $("filter").value = "";
    shown = Math.max(shown, draft.filter(other => other.rank <= item.rank).length);
    render();
  }
  $(`card-${item.id}`).scrollIntoView({block: "start"});
  $(`name-${item.id}`).focus({preventScroll: true});
  $(`name-${item.id}`).select();
}

const say = text => { $("status").textContent = text; };
const complain = text => { $("problem").textContent = text; };

function sayChanges() {
  const many = past.length;
  if (counting) return say("Counting …");
  say(many ? `${many} change${many > 1 ? "s" : ""}${unsaved ? ", not saved" : ", saved"}` : "Nothing is changed.");
}

// ------------------------------------------------------------------ adding, merging and splitting

let go = () => {}; // what the button of the open dialog does
const oneLine = text => text.trim().replace(/\s+/g, " ");

function openAdd() {
  $("add-name").value = $("add-problem").textContent = "";
  go = () => {
    const name = oneLine($("add-name").value);
    if (!name) { $("add-problem").textContent = "A class needs a name."; return; }
    $("add").close();
    add(name);
  };
  $("add").showModal();
}

function openMerge(item) {
  $("merge-title").textContent = `Merge ${quoted(called(item))}`;
  const others = draft.filter(other => other !== item);
  const sorted = [...others].sort((a, b) => called(a).localeCompare(called(b)));
  $("merge-into").replaceChildren(...sorted.map(other => make("option", {value: other.id, text: called(other)})));
  go = () => {
    const into = others.find(other => other.id === Number($("merge-into").value));
    if (into) { $("merge").close(); merge(item, into); }
  };
  $("merge").showModal();
}

async function openSplit(item) {
  let halves;
  try {
    ({halves} = await ask("split", {label: item.of[0]}));
  } catch (error) {
    return complain(error.message);
  }
  complain("");
  $("split-problem").textContent = "";
  $("split-title").textContent = `Split ${quoted(called(item))}`;
  $("split-groups").replaceChildren(...halves.map((half, i) => make("section", {},
    make("label", {for: `split-${i}`, text: `Name of the ${i ? "second" : "first"} group, ${half.count} images`}),
    make("input", {id: `split-${i}`, value: i ? "" : called(item), autocomplete: "off"}),
    pictures(half.images, `the ${i ? "second" : "first"} group`))));
  go = () => {
    const groupNames = halves.map((_, i) => oneLine($(`split-${i}`).value));
    if (groupNames.some(name => !name)) { $("split-problem").textContent = "Both groups need a name."; return; }
    $("split").close();
    split(item, halves, groupNames);
  };
  $("split").showModal();
  $("split-1").focus();
}

// ------------------------------------------------------------------ the ends

async function save() {
  const sent = names(), text = JSON.stringify(sent);
  $("save").disabled = true;
  clearTimeout(timer);
  try {
    const answer = await ask("save", {classes: sent});
    $("saved").hidden = false;
    $("saved-file").textContent = answer.file;
    $("saved-command").textContent = answer.command;
    unsaved = JSON.stringify(names()) !== text; // there may be a change since
    complain("");
    count();
  } catch (error) {
    complain(error.message);
    counting = false;
    sayChanges();
  }
  $("save").disabled = false;
}

async function end() {
  if (unsaved && !confirm("There are unsaved changes. End anyway?")) return;
  try {
    await ask("done", null);
  } catch { /* it has ended already */ }
  unsaved = false;
  document.querySelectorAll("main, dialog, .bar").forEach(element => element.remove());
  document.querySelector("header").replaceChildren(make("h1", {text: "The review has ended"}),
    make("p", {text: "You can close this page. The terminal has the command, too."}));
}

function ranks(state) { // classes with suggestions are shown first
  const first = [...new Set(state.suggestions.map(suggestion => suggestion.label))];
  return state.classes.map((_, label) => first.includes(label) ? first.indexOf(label) : first.length + label);
}

async function start() {
  try {
    run = await ask("state");
  } catch (error) {
    return complain(error.message);
  }
  const rank = ranks(run);
  draft = run.classes.map((item, label) => ({id: nextId++, names: item.names, of: [label], half: false,
    rank: rank[label], images: item.images, count: item.count, share: item.share, before: item.share, taken: []}));
  render();
  count();
}

$("add-open").addEventListener("click", openAdd);
for (const id of ["add", "merge", "split"]) {
  $(id).querySelector(".cancel").addEventListener("click", () => $(id).close());
  $(`${id}-go`).addEventListener("click", () => go());
  $(id).addEventListener("keydown", event => {
    if (event.key === "Enter" && event.target.tagName !== "BUTTON") { event.preventDefault(); go(); }
  });
}
$("undo").addEventListener("click", undo);
$("save").addEventListener("click", save);
$("done").addEventListener("click", end);
$("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText($("saved-command").textContent);
    $("copy").textContent = "Copied";
  } catch { complain("The browser does not allow copying: select the command and copy it."); }
});
$("filter").addEventListener("input", () => { shown = STEP; render(); });
$("more").addEventListener("click", () => { shown += STEP; render(); });
window.addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });
start();
