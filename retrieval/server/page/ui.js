// Preact with htm, under the names that the page uses, and the few things that every view draws with.
import {h, render, createRef} from './vendor/preact.js';
import {useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback} from './vendor/hooks.js';
import htm from './vendor/htm.js';

export const html = htm.bind(h);
export {render, createRef, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback};

let announcer;

/** Say something to a screen reader without moving the focus. */
export function announce(text) {
  announcer ??= document.getElementById('announcer');
  if (announcer) announcer.textContent = text;
}

export function plural(count, one, many = one + 's') {
  return `${count.toLocaleString('en')} ${count === 1 ? one : many}`;
}

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  return count < 1e6 ? `${Math.round(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** A score with three digits behind the point, a probability as a percentage. */
export const score = (value) => (value == null ? '' : value.toFixed(3));
export const percent = (value) => (value == null ? '' : value > 0 && value < 0.01 ? '< 1 %' : value > 0.99 && value < 1 ? '> 99 %' : `${Math.round(value * 100)} %`);

/** The address of a thumbnail so many pixels high. */
export const uploaded = (name) => `v1/uploads/${name}`;
export const thumbnail = (row, size = 256) => `v1/thumbnail/${row}?size=${size}`;

/** A thumbnail; the name where there is no picture to show. */
export function Thumbnail({row, name, size, pictured = true}) {
  const [broken, setBroken] = useState(false);
  return pictured && !broken
    ? html`<img src=${thumbnail(row, size)} loading="lazy" decoding="async" alt="" onError=${() => setBroken(true)} />`
    : html`<span class="no-picture">${name}</span>`;
}

/** How far some work of the server is, in words and as a bar. */
export function Working({title, progress}) {
  const {step, done, total, seconds} = progress || {};
  const text = step ? `${step}${total ? `, ${done.toLocaleString('en')} of ${total.toLocaleString('en')}` : ''}${seconds >= 2 ? `, ${duration(seconds)} so far` : ''}` : '';
  return html`<div class="working" role="status"><strong>${title} …</strong> <span class="hint">${text}</span>
    <progress aria-label=${title} ...${total ? {value: done, max: total} : {}}></progress></div>`;
}

/** Whether a key press is meant for what is being typed in, or for a dialog. */
export function isTyping(event) {
  const target = event.target;
  return event.ctrlKey || event.metaKey || event.altKey
    || /^(INPUT|SELECT|TEXTAREA)$/.test(target.tagName) && !/^(checkbox|radio|button)$/.test(target.type);
}

/** A modal dialog: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({label, onClose, children, className}) {
  const ref = useRef();
  useEffect(() => {
    const dialog = ref.current;
    const before = document.activeElement;
    if (!dialog.open) dialog.showModal();
    return () => {
      dialog.close();
      before?.isConnected && before.focus();
    };
  }, []);
  return html`<dialog ref=${ref} class=${className} aria-label=${label}
    onCancel=${(event) => { event.preventDefault(); onClose(); }}
    onClick=${(event) => event.target === ref.current && onClose()}>
    ${children}</dialog>`;
}
