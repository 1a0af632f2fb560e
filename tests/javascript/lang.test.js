// The words of the page: languages, forms that go with a number, English for what one lacks.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { freshPage, record, storage } from "./page.js";
import { english, t, Words, words } from "../../dmpo_app/ui/static/lib/lang.js";

beforeEach(async () => {
  freshPage();
  await words.speak("en");
});

test("values are filled in, and braces without a value stay", () => {
  assert.equal(t("goal.of", { count: 3, goal: 20 }), "3 of 20");
  assert.equal(t("goal.of", { goal: 20 }), "{count} of 20");
  assert.equal(t("said.next", { prompt: "{goal} <b>" }), "Next: {goal} <b>");
});

test("a number picks the form of its text, as the language has it", async () => {
  assert.deepEqual(
    [1, 2, 0].map((count) => t("kept", { count })),
    ["1 vote kept here, will retry", "2 votes kept here, will retry", "0 votes kept here, will retry"],
  );
  await words.speak("fr");
  assert.equal(t("kept", { count: 0 }), "0 vote gardé ici, nouvel essai à venir");
});

test("a chosen language is spoken, announced and remembered; English alone stays English", async () => {
  const events = record(words, "change");
  await words.choose("de");
  assert.equal(t("question.overall"), "Welches Bild gefällt dir besser?");
  assert.equal(english.t("question.overall"), "Which image do you prefer?");
  assert.deepEqual([events.length, storage.getItem("dmpo.language"), words.number(1234.5, 1)], [1, "de", "1.234,5"]);
});

test("a language that cannot be fetched leaves the old one", async () => {
  await words.speak("es");
  await assert.rejects(words.speak("xx"));
  assert.deepEqual([words.code, t("choice.tie")], ["es", "Empate"]);
});

test("a text that the language lacks is English, and one that nobody has is its key", async () => {
  const own = new Words({ greeting: "hello", other_other: "{count} others" });
  own.table = {};
  own.code = "de";
  assert.deepEqual([own.t("greeting"), own.t("other", { count: 1 }), own.t("none")], ["hello", "1 others", "none"]);
});

test("every language is listed by its own name", async () => {
  await words.speak("de");
  assert.deepEqual(Object.fromEntries(await words.languages()), {
    en: "English",
    de: "Deutsch",
    fr: "Français",
    es: "Español",
  });
});
