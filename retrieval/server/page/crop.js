// A picture on which a rectangle is drawn, by pointer or by numbers, to search with that part.
import {html, useRef, useState} from './ui.js';

const clamp = (value) => Math.min(1, Math.max(0, value));
export const boxStyle = ([x, y, width, height]) => ({
  left: `${x * 100}%`, top: `${y * 100}%`, width: `${width * 100}%`, height: `${height * 100}%`,
});

/** The part of a result in which the query was found, where that is not all of it. */
export const Found = ({box}) => (box && box[2] * box[3] < 0.98 ? html`<span class="found" style=${boxStyle(box)}></span>` : null);

export function Crop({src, alt, width, height, box, found, onBox, onError}) {
  const [natural, setNatural] = useState(null);
  const [wide, tall] = natural || [width, height];
  const frame = useRef();
  const start = useRef(null);
  const [drawn, setDrawn] = useState(null);
  const shown = drawn || box;

  const place = (event) => {
    const area = frame.current.getBoundingClientRect();
    return [clamp((event.clientX - area.left) / area.width), clamp((event.clientY - area.top) / area.height)];
  };
  const down = (event) => {
    if (event.button) return;
    event.preventDefault();
    start.current = place(event);
    frame.current.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    if (!start.current) return;
    const [x, y] = place(event);
    const [fromX, fromY] = start.current;
    setDrawn([Math.min(x, fromX), Math.min(y, fromY), Math.abs(x - fromX), Math.abs(y - fromY)]);
  };
  const up = () => {
    if (!start.current) return;
    start.current = null;
    // a click is no rectangle
    if (drawn && drawn[2] > 0.02 && drawn[3] > 0.02) onBox(drawn);
    setDrawn(null);
  };
  // as large as there is room for: a small picture is enlarged, so that one can draw on it
  const size = wide && {'--shape': wide / tall, '--most': `${Math.max(wide, 480)}px`};
  return html`<div class="crop" ref=${frame} style=${size || {}} onPointerDown=${down} onPointerMove=${move} onPointerUp=${up}
      onPointerCancel=${() => { start.current = null; setDrawn(null); }}>
    <img src=${src} alt=${alt} draggable=${false} onError=${onError}
      onLoad=${(event) => setNatural([event.target.naturalWidth, event.target.naturalHeight])} />
    ${!shown && html`<${Found} box=${found} />`}
    ${shown && html`<div class="box" style=${boxStyle(shown)}></div>`}
  </div>`;
}

/** The same rectangle in percent, for those who do not draw. */
export function BoxFields({box, onBox}) {
  const shown = box || [0, 0, 1, 1];
  const field = (name, at) => html`<label>${name}
    <input type="number" min="0" max="100" step="1" value=${Math.round(shown[at] * 100)} onChange=${(event) => {
      const next = [...shown];
      next[at] = clamp(event.target.value / 100);
      next[2] = Math.max(0.02, Math.min(next[2], 1 - next[0]));
      next[3] = Math.max(0.02, Math.min(next[3], 1 - next[1]));
      onBox(next);
    }} /></label>`;
  return html`<fieldset class="numbers"><legend>Part of the picture, in percent</legend>
    ${field('left', 0)}${field('top', 1)}${field('width', 2)}${field('height', 3)}</fieldset>`;
}
