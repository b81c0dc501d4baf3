"use strict";

// What is seen of the draft (draft.js), and what a click does.
const STEP = 60; // classes that are shown at a time
let shown = STEP;

// ------------------------------------------------------------------ what is seen

function make(tag, content = {}, ...children) {
  const own = document.createElement(tag);
  for (const [name, value] of Object.entries(content)) {
    if (name === "text") own.textContent = value;
    else if (name === "click") own.addEventListener("click", value);
    else if (name === "change") own.addEventListener("change", value);
    else own.setAttribute(name, value);
  }
  own.append(...children);
  return own;
}

const button = (text, label, click) => make("button", {type: "button", text, "aria-label": label, click});
const percent = share => share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`;

function pictures(places, what) {
  const list = make("ul", {class: "pictures"});
  places.forEach((place, i) => list.append(make("li", {}, make("img",
    {src: `picture/${place}`, alt: `image ${i + 1} of ${what}`, loading: "lazy", width: 96, height: 96}))));
  return list;
}

function card(own) {
  const article = make("article", {id: `card-${own.id}`});
  article.append(make("h3", {}, make("bdi", {id: `title-${own.id}`})));
  article.append(make("p", {class: "share", id: `share-${own.id}`}));
  const field = (kind, label, value, first) => make("div", {},
    make("label", {for: `${kind}-${own.id}`, text: label}),
    make("input", {id: `${kind}-${own.id}`, value, autocomplete: "off", spellcheck: "false",
      change: event => rename(own, event.target, first)}));
  article.append(make("div", {class: "names"}, field("name", "Name", called(own), true),
    field("synonyms", "Synonyms, with | between them", own.names.slice(1).join(" | "), false)));
  const actions = make("p", {class: "actions"});
  const add = (text, click) => actions.append(button(text, `${text.replace("…", "")} ${called(own)}`, click));
  add("Merge…", () => openMerge(own));
  if (own.of.length === 1 && !own.half) add("Split…", () => openSplit(own));
  add("Drop", () => drop(own));
  article.append(actions, pictures(own.images, called(own)));
  const taken = make("details", {id: `taken-${own.id}`}, make("summary", {text: "What zero-shot CLIP takes for it now"}));
  taken.addEventListener("toggle", () => showShare(own));
  article.append(taken);
  return article;
}

function showTitle(own) {
  const title = $(`title-${own.id}`);
  if (title) title.textContent = called(own);
}

function showShare(own) {
  const line = $(`share-${own.id}`), details = $(`taken-${own.id}`);
  if (!line) return;
  line.replaceChildren(`${own.count.toLocaleString("en")} images in the end · zero-shot ${percent(own.before)} → `,
    make("strong", {text: percent(own.share)}));
  if (!details.open) return;
  details.querySelector("ul, p")?.remove();
  details.append(own.taken.length ? pictures(own.taken, `what is taken for ${called(own)}`) : make("p", {text: "No image."}));
}

function render() {
  const focused = document.activeElement?.id, text = $("filter").value.trim().toLowerCase();
  const chosen = draft.filter(own => own.names.some(name => name.toLowerCase().includes(text)));
  chosen.sort((a, b) => a.rank - b.rank);
  $("cards").replaceChildren(...chosen.slice(0, shown).map(card));
  if (!chosen.length) $("cards").append(make("p", {text: "No class has this in its names."}));
  chosen.slice(0, shown).forEach(own => { showTitle(own); showShare(own); });
  $("more").hidden = chosen.length <= shown;
  $("class-count").textContent = draft.length;
  if (focused && $(focused)) $(focused).focus();
  renderSuggestions();
  sayChanges();
}

function isOpen(suggestion, number) {
  const own = cardOf(suggestion.label), other = cardOf(suggestion.other);
  const same = own && called(own) === run.classes[suggestion.label].names[0];
  return !settled.has(number) && same && (suggestion.other < 0 || other);
}

function renderSuggestions() {
  const left = run.suggestions.map((own, number) => [own, number]).filter(([own, number]) => isOpen(own, number));
  $("suggestion-list").replaceChildren(...left.map(([suggestion, number]) => {
    const own = cardOf(suggestion.label), other = cardOf(suggestion.other), actions = make("p", {class: "actions"});
    const name = quoted(called(own));
    if (other) actions.append(make("button", {type: "button", text: `Merge ${name} into ${quoted(called(other))}`,
      click: () => merge(own, other)}));
    else actions.append(make("button", {type: "button", text: `Drop ${name}`, click: () => drop(own)}));
    actions.append(make("button", {type: "button", text: `Rename ${name}`, click: () => focusName(own)}));
    actions.append(button("Keep", `Keep ${called(own)} as it is`, () => {
      change(() => settled.add(number));
      renderSuggestions();
      $("suggestion-list").querySelector("button")?.focus();
    }));
    return make("li", {}, make("p", {}, make("bdi", {text: suggestion.text})), actions);
  }));
  $("suggestion-count").textContent = left.length;
  $("no-suggestion").hidden = left.length > 0;
}

function focusName(own) {
  if (!$(`name-${own.id}`)) { // beyond those that are shown, or filtered away
    $("filter").value = "";
    shown = Math.max(shown, draft.filter(other => other.rank <= own.rank).length);
    render();
  }
  $(`card-${own.id}`).scrollIntoView({block: "start"});
  $(`name-${own.id}`).focus({preventScroll: true});
  $(`name-${own.id}`).select();
}

const say = text => { $("status").textContent = text; };
const complain = text => { $("problem").textContent = text; };

function sayChanges() {
  const many = past.length;
  if (counting) return say("Counting …");
  say(many ? `${many} change${many > 1 ? "s" : ""}${unsaved ? ", not saved" : ", saved"}` : "Nothing is changed.");
}

// ------------------------------------------------------------------ merging and splitting

let go = () => {}; // what the button of the open dialog does

function openMerge(own) {
  $("merge-title").textContent = `Merge ${quoted(called(own))}`;
  const others = draft.filter(other => other !== own);
  const sorted = [...others].sort((a, b) => called(a).localeCompare(called(b)));
  $("merge-into").replaceChildren(...sorted.map(other => make("option", {value: other.id, text: called(other)})));
  go = () => {
    const into = others.find(other => other.id === Number($("merge-into").value));
    if (into) { $("merge").close(); merge(own, into); }
  };
  $("merge").showModal();
}

async function openSplit(own) {
  let halves;
  try {
    ({halves} = await ask("split", {label: own.of[0]}));
  } catch (error) {
    return complain(error.message);
  }
  complain("");
  $("split-problem").textContent = "";
  $("split-title").textContent = `Split ${quoted(called(own))}`;
  $("split-groups").replaceChildren(...halves.map((half, i) => make("section", {},
    make("label", {for: `split-${i}`, text: `Name of the ${i ? "second" : "first"} group, ${half.count} images`}),
    make("input", {id: `split-${i}`, value: i ? "" : called(own), autocomplete: "off"}),
    pictures(half.images, `the ${i ? "second" : "first"} group`))));
  go = () => {
    const given = halves.map((_, i) => $(`split-${i}`).value.trim().replace(/\s+/g, " "));
    if (given.some(name => !name)) { $("split-problem").textContent = "Both groups need a name."; return; }
    $("split").close();
    split(own, halves, given);
  };
  $("split").showModal();
  $("split-1").focus();
}

// ------------------------------------------------------------------ the ends

async function save() {
  $("save").disabled = true;
  try {
    clearTimeout(timer);
    const found = await ask("save", {classes: names(), page: run.page});
    $("saved").hidden = false;
    $("saved-file").textContent = found.file;
    $("saved-command").textContent = found.command;
    $("saved-notice").textContent = found.notice;
    unsaved = false;
    complain("");
    sayChanges();
    count();
  } catch (error) {
    complain(error.message);
  }
  $("save").disabled = false;
}

async function end() {
  if (unsaved && !confirm("There are changes that are not saved. End all the same?")) return;
  try {
    await ask("done", null);
  } catch { /* it has ended already */ }
  unsaved = false;
  document.querySelectorAll("main, dialog, .bar").forEach(own => own.remove());
  document.querySelector("header").replaceChildren(make("h1", {text: "The review has ended"}),
    make("p", {text: "You can close this page. The terminal has the command, too."}));
}

function ranks(found) { // classes with suggestions are shown first
  const first = [...new Set(found.suggestions.map(own => own.label))];
  return found.classes.map((_, label) => first.includes(label) ? first.indexOf(label) : first.length + label);
}

async function start() {
  try {
    run = await ask("state");
  } catch (error) {
    return complain(error.message);
  }
  const rank = ranks(run);
  draft = run.classes.map((own, label) => ({id: nextId++, names: own.names, of: [label], half: false, rank: rank[label],
    images: own.images, count: own.count, share: own.share, before: own.share, taken: []}));
  render();
  count();
}

for (const id of ["merge", "split"]) {
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
  } catch { complain("The browser does not let the page copy: mark the command, and copy it."); }
});
$("filter").addEventListener("input", () => { shown = STEP; render(); });
$("more").addEventListener("click", () => { shown += STEP; render(); });
window.addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });
start();
