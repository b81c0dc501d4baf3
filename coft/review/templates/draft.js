"use strict";

// The draft is a list of classes, as they are saved: {id, names, of: labels of the run's classes, half: whether it was
// split, rank: where it is shown, images, count, before and share: what zero-shot CLIP gives it, taken}.
// Names are anybody's text: they only ever become text of an element or a field, never markup.
const $ = id => document.getElementById(id);
let run = {classes: [], suggestions: []};
let draft = [], settled = new Set(), past = [], nextId = 0, asked = 0, timer = 0, unsaved = false, counting = false;

// ------------------------------------------------------------------ the server

async function ask(name, request) {
  const options = request === undefined ? {} :
    {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(request)};
  let answer;
  try {
    answer = await fetch(name, options);
  } catch {
    throw new Error("The review has ended: start it again.");
  }
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

const names = () => draft.map(item => item.names);

async function count() {
  const request = ++asked, sent = draft.map(item => item.id);
  counting = true;
  sayChanges();
  try {
    const content = await ask("effect", {classes: names()});
    if (request !== asked) return;
    sent.forEach((id, position) => {
      const item = draft.find(other => other.id === id);
      if (item) Object.assign(item, {share: content.shares[position], taken: content.images[position]});
    });
    complain("");
    draft.forEach(showShare);
  } catch (error) {
    if (request === asked) complain(error.message);
  }
  if (request === asked) {
    counting = false;
    sayChanges();
  }
}

// ------------------------------------------------------------------ changes

function change(work) {
  past.push({draft: structuredClone(draft), settled: new Set(settled)});
  work();
  unsaved = counting = true;
  $("undo").disabled = false;
  clearTimeout(timer);
  timer = setTimeout(count, 250);
  sayChanges();
}

function undo() {
  const last = past.pop();
  if (!last) return;
  ({draft, settled} = last);
  $("undo").disabled = !past.length;
  unsaved = true;
  render();
  count();
}

const cardOf = label => draft.find(item => item.of.length === 1 && item.of[0] === label && !item.half);
const called = item => item.names[0];
const quoted = text => `“${text}”`;

function rename(item, field, first) {
  const text = field.value.trim().replace(/\s+/g, " ");
  const synonyms = text.split("|").map(name => name.trim()).filter(Boolean);
  const after = first ? [text, ...item.names.slice(1)] : [called(item), ...synonyms];
  if (first && !text) { field.value = called(item); return complain("A class needs a name."); }
  if (after.join("|") === item.names.join("|")) return;
  change(() => { item.names = after; });
  if (first) showTitle(item);
  renderSuggestions();
}

function merge(item, into) {
  change(() => {
    into.names = [...new Set([...into.names, ...item.names])];
    into.of = [...into.of, ...item.of];
    into.images = mixed(into.images, item.images);
    into.count += item.count;
    into.before = [into.before, item.before].includes(null) ? null : into.before + item.before;
    into.half = into.half || item.half;
    draft = draft.filter(other => other !== item);
  });
  render();
  focusName(into);
}

function mixed(first, second) {
  const both = [];
  for (let i = 0; i < Math.max(first.length, second.length); i++) {
    if (i < first.length) both.push(first[i]);
    if (i < second.length) both.push(second[i]);
  }
  return both.slice(0, 16);
}

function add(name) {
  const rank = Math.min(0, ...draft.map(item => item.rank)) - 1; // before all others
  const item = {id: nextId++, names: [name], of: [], half: true, rank, images: [], count: 0, before: null, share: null,
    taken: []};
  change(() => { draft = [item, ...draft]; });
  render();
  focusName(item);
}

function drop(item) {
  const position = draft.indexOf(item);
  change(() => { draft = draft.filter(other => other !== item); });
  render();
  if (draft.length) focusName(draft[Math.min(position, draft.length - 1)]);
}

function split(item, halves, called) {
  change(() => {
    const position = draft.indexOf(item);
    const rest = {names: [called[1]], of: [], half: true, taken: [], share: null, before: null};
    const second = {id: nextId++, rank: item.rank + 0.5, ...rest};
    Object.assign(item, {names: [called[0], ...item.names.slice(1)], half: true, before: null});
    [item, second].forEach((part, i) => Object.assign(part, {images: halves[i].images, count: halves[i].count}));
    draft.splice(position + 1, 0, second);
  });
  render();
  focusName(item);
}
