"use strict";

// The draft is a list of classes, as they are saved: {id, names, of: labels of the run's classes, half: whether it was
// split, rank: where it is shown, images, count, before and share: what zero-shot CLIP gives it, taken}.
// Names are anybody's text: they only ever become text of an element or a field, never markup.
const $ = id => document.getElementById(id);
let run = {classes: [], suggestions: []};
let draft = [], settled = new Set(), past = [], nextId = 0, asked = 0, timer = 0, unsaved = false, counting = false;

// ------------------------------------------------------------------ the server

async function ask(name, content) {
  const options = content === undefined ? {} :
    {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(content)};
  let answer;
  try {
    answer = await fetch(name, options);
  } catch {
    throw new Error("The review has ended: start it again.");
  }
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error);
  return found;
}

const names = () => draft.map(own => own.names);

async function count() {
  const mine = ++asked, sent = draft.map(own => own.id);
  counting = true;
  sayChanges();
  try {
    const found = await ask("effect", {classes: names()});
    if (mine !== asked) return;
    sent.forEach((id, place) => {
      const own = draft.find(other => other.id === id);
      if (own) Object.assign(own, {share: found.shares[place], taken: found.images[place]});
    });
    complain("");
    draft.forEach(showShare);
  } catch (error) {
    if (mine === asked) complain(error.message);
  }
  if (mine === asked) {
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

const cardOf = label => draft.find(own => own.of.length === 1 && own.of[0] === label && !own.half);
const called = own => own.names[0];
const quoted = text => `“${text}”`;

function rename(own, field, first) {
  const text = field.value.trim().replace(/\s+/g, " ");
  const synonyms = text.split("|").map(name => name.trim()).filter(Boolean);
  const after = first ? [text, ...own.names.slice(1)] : [called(own), ...synonyms];
  if (first && !text) { field.value = called(own); return complain("A class needs a name."); }
  if (after.join("|") === own.names.join("|")) return;
  change(() => { own.names = after; });
  if (first) showTitle(own);
  renderSuggestions();
}

function merge(own, into) {
  change(() => {
    into.names = [...new Set([...into.names, ...own.names])];
    into.of = [...into.of, ...own.of];
    into.images = mixed(into.images, own.images);
    into.count += own.count;
    into.before += own.before;
    into.half = into.half || own.half;
    draft = draft.filter(other => other !== own);
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

function drop(own) {
  const place = draft.indexOf(own);
  change(() => { draft = draft.filter(other => other !== own); });
  render();
  if (draft.length) focusName(draft[Math.min(place, draft.length - 1)]);
}

function split(own, halves, called) {
  change(() => {
    const place = draft.indexOf(own);
    const rest = {names: [called[1]], of: [], half: true, taken: [], share: null, before: 0};
    const second = {id: nextId++, rank: own.rank + 0.5, ...rest};
    Object.assign(own, {names: [called[0], ...own.names.slice(1)], half: true});
    [own, second].forEach((part, i) => Object.assign(part, {images: halves[i].images, count: halves[i].count}));
    draft.splice(place + 1, 0, second);
  });
  render();
  focusName(own);
}
