"use strict";

const NO_ANSWER =
  "No answer: the preview has ended, or the connection is lost. " +
  "If it has ended, start fer-edge preview again, and open the address that it prints.";
const SILENCE = 10000; // milliseconds after which no answer comes any more
const PAUSE = 60; // milliseconds between two frames, so that a fast browser leaves the device time for its work
const ADVICE = {
  "small": ["too small", "Mount the camera nearer, or ask for a larger picture (camera.size)."],
  "turned": ["turned away", "Mount the camera near what visitors look at, at the height of their eyes."],
  "still": ["a picture, not a visitor", "Turn the camera away from it, or name its place in detect.ignore."],
  "blurred": ["too blurred", "Focus the lens. More light, or a shorter exposure, blurs movement less."],
  "low contrast": ["too little contrast", "Light the face evenly from the front; no window or lamp behind it."],
};

const at = (id) => document.getElementById(id);
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
let number = 0; // of the frame that is shown

function make(kind, text, ...classes) {
  const element = document.createElement(kind);
  element.textContent = text;
  element.classList.add(...classes.filter(Boolean));
  return element;
}

function notice(text) {
  at("notice").textContent = text;
  at("notice").hidden = !text;
}

// A device without power or network does not even refuse: an old picture would stay as if it were live.
const ask = (path, options) => fetch(path, { ...options, signal: AbortSignal.timeout?.(SILENCE) });

function hideLive() {
  at("live").hidden = true;
  at("picture").removeAttribute("src"); // nobody takes an old picture for a live one, and the browser keeps none
  at("left").textContent = "";
  number = 0;
}

function askForCode(refusal) {
  hideLive();
  notice("");
  at("entry").hidden = false;
  at("refusal").textContent = refusal;
  at("code").focus();
}

async function enter(code) {
  at("entry").hidden = true;
  let refusal;
  try {
    const answer = await ask("/session", { method: "POST", body: code.slice(0, 60) });
    refusal = answer.ok ? "" : await answer.text();
  } catch {
    refusal = NO_ANSWER;
  }
  if (refusal) {
    askForCode(refusal);
  } else {
    await follow();
  }
}

async function follow() {
  notice("Waiting for the first picture of the camera…");
  for (;;) {
    let answer;
    try {
      const response = await ask(`/live?${number}`);
      if (response.status === 403) {
        askForCode("");
        return;
      }
      if (response.status === 410) { // the preview says that it ends, and how to go on
        hideLive();
        notice(await response.text());
        return;
      }
      answer = await response.json();
    } catch {
      hideLive();
      notice(NO_ANSWER);
      await wait(1000);
      continue;
    }
    const seconds = Math.ceil(answer.seconds_left);
    at("left").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")} left`;
    if (answer.frame) {
      await show(answer.frame);
    } else if (number) {
      notice("The camera gives no new picture.");
    }
    await wait(PAUSE);
  }
}

async function show(frame) {
  number = frame.number;
  at("picture").src = `data:image/jpeg;base64,${frame.picture}`;
  await at("picture").decode().catch(() => {}); // picture and boxes change together
  const [width, height] = frame.size;
  at("stage").style.maxWidth = `calc(85vh * ${width / height})`;
  const searched = at("searched").style;
  searched.width = `${(100 * frame.limits.searched) / width}%`;
  searched.height = `${(100 * frame.limits.searched) / height}%`;
  at("searched-size").textContent = Math.round(frame.limits.searched);
  at("facts").textContent =
    `${width}×${height} · ${frame.fps.toFixed(1)} frames/s · brightness ${Math.round(frame.brightness)}/255`;
  at("boxes").replaceChildren(...frame.faces.map((face) => box(face, width, height)));
  at("faces").replaceChildren(
    ...(frame.faces.length ? frame.faces.map((face) => card(face, frame.limits)) : [make("p", "No face is found.")]),
  );
  at("live").hidden = false;
  notice("");
}

function words(face) {
  const percent = `${face.label} ${Math.round(100 * face.confidence)} %`;
  switch (face.verdict) {
    case "expression": return percent;
    case "uncertain": return `uncertain: ${percent}`;
    case "waiting": return "not classified yet";
    case "hidden": return "good enough to classify";
    default: return `refused: ${ADVICE[face.verdict][0]}`;
  }
}

const tone = (face) => (face.verdict in ADVICE ? "refused" : face.verdict);

function box(face, width, height) {
  const [left, top, w, h] = face.box;
  const element = make("div", "", "box", tone(face), top + h > 0.9 * height && "low", left > 0.6 * width && "right");
  element.style.left = `${(100 * left) / width}%`;
  element.style.top = `${(100 * top) / height}%`;
  element.style.width = `${(100 * w) / width}%`;
  element.style.height = `${(100 * h) / height}%`;
  element.append(make("span", `${face.track}  ${words(face)}`));
  return element;
}

function card(face, limits) {
  const copy = at("card").content.cloneNode(true);
  const side = Math.min(face.box[2], face.box[3]);
  copy.querySelector("article").classList.add(tone(face));
  copy.querySelector(".track").textContent = `Face ${face.track}`;
  copy.querySelector(".verdict").textContent = words(face);
  copy.querySelector(".advice").textContent = face.verdict in ADVICE ? ADVICE[face.verdict][1] : "";
  copy.querySelector("dl").append(
    ...fact("size", `${side} px`, side < limits.size, `at least ${limits.size} px`),
    ...fact("", `${Math.round(100 * face.share)} %`, false, "of the shorter side"),
    ...fact("contrast", face.contrast.toFixed(0), face.contrast < limits.contrast, `at least ${limits.contrast}`),
    ...fact("sharpness", face.sharpness.toFixed(2), face.sharpness < limits.sharpness, `at least ${limits.sharpness}`),
    ...fact("brightness", face.brightness.toFixed(0), false, "of 255"),
  );
  if (face.label) {
    const percent = `${Math.round(100 * face.confidence)} %`;
    const least = `certain from ${Math.round(100 * limits.confidence)} %`;
    copy.querySelector("dl").append(...fact("confidence", percent, face.verdict === "uncertain", least));
  }
  return copy;
}

function fact(name, value, short, limit) {
  return [make("dt", name), make("dd", value, short && "short"), make("dd", limit, "limit")];
}

at("entry").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(at("code").value);
});

// To the browser, the address of the next preview is another place on this page, where it need not load anything.
addEventListener("hashchange", () => location.reload());

// What follows # is never sent to a server. It is used once, so it need not stay in the address.
const code = location.hash.slice(1);
history.replaceState(null, "", "/");
if (code) {
  enter(code);
} else {
  follow();
}
