// The embeddings in two dimensions, on a canvas: pan, zoom, and a lasso that filters the results.
import {html, useEffect, useMemo, useRef, useState, Working, announce, plural, thumbnail} from './ui.js';
import {waitFor, download} from './api.js';

let kept = null;  // {generation, map}: asked for once, and again only on demand, since making it takes seconds

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

export async function loadMap(generation, anew = false, tell = () => {}) {
  if (!kept || anew && kept.generation !== generation) {
    const answer = await waitFor('v1/map', {}, tell);
    kept = {generation, map: {points: new Float32Array(bytesOf(answer.points)), rows: answer.rows,
      colours: answer.colours.map(({name, values, codes}) => ({name, values, codes: new Int32Array(bytesOf(codes))}))}};
  }
  return kept.map;
}

/** The rows whose points lie inside a polygon [x, y, x, y, …]. */
export function rowsInside(map, corners) {
  const rows = [];
  const count = corners.length / 2;
  for (let point = 0; point < map.rows.length; point += 1) {
    const x = map.points[2 * point];
    const y = map.points[2 * point + 1];
    let inside = false;
    for (let at = 0, last = count - 1; at < count; last = at++) {
      const [ax, ay, bx, by] = [corners[2 * at], corners[2 * at + 1], corners[2 * last], corners[2 * last + 1]];
      if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) inside = !inside;
    }
    if (inside) rows.push(map.rows[point]);
  }
  return rows;
}

/** The colours of values as [red, green, blue], each far from those before it. */
function colours(count, dark) {
  return Array.from({length: count}, (_, number) => {
    const hue = (number * 137.508) % 360;
    const light = dark ? 0.62 : 0.42;
    const strength = (0.62 + (number % 3) * 0.12) * Math.min(light, 1 - light);
    return [0, 8, 4].map((shift) => {
      const at = (shift + hue / 30) % 12;
      return Math.round(255 * (light - strength * Math.max(-1, Math.min(at - 3, 9 - at, 1))));
    });
  });
}

/** How far a disc reaches to either side, line by line. */
const disc = (size) => Array.from({length: size}, (_, line) => (size < 4 ? size / 2
  : Math.sqrt(Math.max(0, (size / 2) ** 2 - (line + 0.5 - size / 2) ** 2))));

const LEGEND = 12;

/** The most frequent values with their colours; a press shows one alone. */
function Legend({shown, palette, only, setOnly}) {
  const counts = new Uint32Array(shown.values.length);
  for (const code of shown.codes) counts[code] += 1;
  const order = shown.values.map((_, code) => code).sort((a, b) => counts[b] - counts[a] || a - b);
  return html`<ul class="legend" aria-label=${`Colours by ${shown.name}`}>${order.slice(0, LEGEND).map((code) => html`<li key=${code}>
      <button class="plain" aria-pressed=${only === code} onClick=${() => setOnly(only === code ? null : code)}>
        <span class="swatch" style=${{background: `rgb(${palette[code]})`}}></span>${shown.values[code] || 'none'} <span class="count">${counts[code].toLocaleString('en')}</span></button></li>`)}
    ${order.length > LEGEND && html`<li class="hint">and ${plural(order.length - LEGEND, 'other')}</li>`}</ul>`;
}

const darkScheme = matchMedia('(prefers-color-scheme: dark)');

export function MapView({generation, lasso, colour, change, report, onOpen, hasPictures, parquet}) {
  const canvas = useRef();
  const [map, setMap] = useState(null);
  const [progress, setProgress] = useState(null);
  const [only, setOnly] = useState(null);
  const [dark, setDark] = useState(darkScheme.matches);
  const [tool, setTool] = useState('pan');
  const [hover, setHover] = useState(null);
  const [seen, setSeen] = useState(generation);
  const view = useRef(null);       // {scale, x, y}: what of the plane stands in the middle
  const gesture = useRef(null);
  const fingers = useRef(new Map());
  const path = useRef([]);
  const frame = useRef(0);
  const sheet = useRef(null);       // the pixels, kept from frame to frame

  useEffect(() => {
    let current = true;
    setProgress(null);
    loadMap(seen, true, (told) => current && setProgress(told)).then((loaded) => current && setMap(loaded), report);
    return () => { current = false; };
  }, [seen]);

  const inside = useMemo(() => (map && lasso ? new Set(rowsInside(map, lasso)) : null), [map, lasso]);

  const shown = map && (map.colours.find(({name}) => name === colour) || map.colours[0]);
  const palette = useMemo(() => colours(shown?.values.length || 1, dark), [shown, dark]);
  // what is neither in the lasso nor of the value that was chosen is faint
  const faint = useMemo(() => map && (inside || only !== null)
    && Uint8Array.from(map.rows, (row, point) => (inside && !inside.has(row) || only !== null && shown?.codes[point] !== only ? 1 : 0)), [map, inside, only, shown]);
  useEffect(() => setOnly(null), [shown]);

  const fit = () => {
    let [left, right, top, bottom] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let at = 0; at < map.points.length; at += 2) {
      left = Math.min(left, map.points[at]); right = Math.max(right, map.points[at]);
      top = Math.min(top, map.points[at + 1]); bottom = Math.max(bottom, map.points[at + 1]);
    }
    const {clientWidth, clientHeight} = canvas.current;
    view.current = {x: (left + right) / 2, y: (top + bottom) / 2,
      scale: 0.92 * Math.min(clientWidth / (right - left || 1), clientHeight / (bottom - top || 1))};
  };
  const toPlane = (x, y) => {
    const {clientWidth, clientHeight} = canvas.current;
    return [(x - clientWidth / 2) / view.current.scale + view.current.x, (y - clientHeight / 2) / view.current.scale + view.current.y];
  };
  const paint = () => {
    frame.current = 0;
    if (!map || !canvas.current) return;
    const target = canvas.current;
    const ratio = devicePixelRatio || 1;
    const {clientWidth: width, clientHeight: height} = target;
    if (target.width !== Math.round(width * ratio)) { target.width = Math.round(width * ratio); target.height = Math.round(height * ratio); }
    const pen = target.getContext('2d');
    const {scale, x, y} = view.current;
    const [shiftX, shiftY] = [width / 2 - x * scale, height / 2 - y * scale];
    const size = Math.round((map.rows.length > 20000 ? 3 : map.rows.length > 3000 ? 4 : map.rows.length > 500 ? 7 : 10) * ratio);
    // pixels of one's own are drawn several times as fast as shapes: 50,000 points stay smooth
    if (sheet.current?.width !== target.width || sheet.current.height !== target.height) sheet.current = pen.createImageData(target.width, target.height);
    const image = sheet.current;
    const pixels = new Uint32Array(image.data.buffer);
    pixels.fill(0);
    const tints = Uint32Array.from(palette, ([red, green, blue]) => blue << 16 | green << 8 | red);
    const reach = disc(size);
    const {points} = map;
    const codes = shown?.codes;
    for (const pass of faint ? [1, 0] : [0]) {
      const alpha = (pass ? 44 : 225) << 24;
      for (let point = 0; point < map.rows.length; point += 1) {
        if (faint && faint[point] !== pass) continue;
        const middle = (points[2 * point] * scale + shiftX) * ratio;
        const top = Math.round((points[2 * point + 1] * scale + shiftY) * ratio - size / 2);
        if (middle < size || top < 0 || middle + size > target.width || top + size > target.height) continue;
        const tint = tints[codes ? codes[point] : 0] | alpha;
        for (let line = 0; line < size; line += 1) {
          const start = (top + line) * target.width;
          const end = start + Math.round(middle + reach[line]);
          for (let at = start + Math.round(middle - reach[line]); at < end; at += 1) pixels[at] = tint;
        }
      }
    }
    pen.putImageData(image, 0, 0);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    const corners = path.current.length ? path.current : lasso || [];
    if (corners.length) {
      pen.beginPath();
      for (let at = 0; at < corners.length; at += 2) pen.lineTo(corners[at] * scale + shiftX, corners[at + 1] * scale + shiftY);
      if (!path.current.length) pen.closePath();
      pen.strokeStyle = getComputedStyle(target).color;
      pen.lineWidth = 1.5;
      pen.setLineDash([5, 4]);
      pen.stroke();
      pen.setLineDash([]);
    }
  };
  const repaint = () => { frame.current ||= requestAnimationFrame(paint); };

  useEffect(() => {
    if (!map) return undefined;
    if (!view.current) fit();
    repaint();
    const observer = new ResizeObserver(repaint);
    observer.observe(canvas.current);
    const follow = () => setDark(darkScheme.matches);
    darkScheme.addEventListener('change', follow);
    return () => { observer.disconnect(); darkScheme.removeEventListener('change', follow); cancelAnimationFrame(frame.current); frame.current = 0; };
  }, [map, lasso, faint, palette]);

  const zoom = (factor, x = canvas.current.clientWidth / 2, y = canvas.current.clientHeight / 2) => {
    const [planeX, planeY] = toPlane(x, y);
    view.current.scale *= factor;
    const [nowX, nowY] = toPlane(x, y);
    view.current.x += planeX - nowX;
    view.current.y += planeY - nowY;
    repaint();
  };
  useEffect(() => {
    if (!map) return undefined;
    // Preact cannot say that a listener is not passive, and the page must not scroll under the wheel
    const wheel = (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); };
    canvas.current.addEventListener('wheel', wheel, {passive: false});
    return () => canvas.current?.removeEventListener('wheel', wheel);
  }, [map]);

  const nearest = (x, y) => {
    const [planeX, planeY] = toPlane(x, y);
    let best = -1;
    let far = (10 / view.current.scale) ** 2;
    for (let point = 0; point < map.rows.length; point += 1) {
      const distance = (map.points[2 * point] - planeX) ** 2 + (map.points[2 * point + 1] - planeY) ** 2;
      if (distance < far) { far = distance; best = point; }
    }
    return best;
  };
  const place = (event) => {
    const area = canvas.current.getBoundingClientRect();
    return [event.clientX - area.left, event.clientY - area.top];
  };
  const down = (event) => {
    if (!map || event.button) return;
    canvas.current.setPointerCapture(event.pointerId);
    const [x, y] = place(event);
    fingers.current.set(event.pointerId, [x, y]);
    setHover(null);
    gesture.current = {kind: fingers.current.size > 1 ? 'pinch' : tool === 'lasso' || event.shiftKey ? 'lasso' : 'pan', x, y, moved: 0};
    path.current = gesture.current.kind === 'lasso' ? toPlane(x, y) : [];
  };
  const move = (event) => {
    if (!map) return;
    const [x, y] = place(event);
    const now = gesture.current;
    if (!now) {
      const point = nearest(x, y);
      setHover(point < 0 ? null : {row: map.rows[point], label: shown?.values[shown.codes[point]], x, y});
      return;
    }
    const before = fingers.current.get(event.pointerId);
    fingers.current.set(event.pointerId, [x, y]);
    now.moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
    if (now.kind === 'lasso') {
      path.current = [...path.current, ...toPlane(x, y)];
    } else if (now.kind === 'pinch') {
      const [, other] = [...fingers.current].find(([id]) => id !== event.pointerId) || [0, [x, y]];
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoom(apart([x, y]) / apart(before), (x + other[0]) / 2, (y + other[1]) / 2);
    } else {
      view.current.x -= (x - before[0]) / view.current.scale;
      view.current.y -= (y - before[1]) / view.current.scale;
    }
    repaint();
  };
  const choose = (corners) => {
    const rows = rowsInside(map, corners);
    announce(`${rows.length} pictures inside`);
    change({lasso: rows.length ? corners : null});
  };
  const up = (event) => {
    const now = gesture.current;
    fingers.current.delete(event.pointerId);
    if (!now) return;
    if (!fingers.current.size) gesture.current = null;
    if (now.kind === 'lasso' && now.moved > 10) {
      // at most 60 corners: the lasso stands in the address
      const step = Math.ceil(path.current.length / 2 / 60);
      const corners = [];
      for (let at = 0; at < path.current.length / 2; at += step) corners.push(...path.current.slice(2 * at, 2 * at + 2).map((value) => Number(value.toPrecision(5))));
      path.current = [];
      if (corners.length >= 6) choose(corners);
    } else if (now.kind !== 'pinch' && now.moved < 4) {
      const point = nearest(now.x, now.y);
      if (point >= 0) onOpen(map.rows[point]);
    }
    path.current = [];
    repaint();
  };
  const inView = () => {
    const {clientWidth, clientHeight} = canvas.current;
    choose([[0, 0], [clientWidth, 0], [clientWidth, clientHeight], [0, clientHeight]].flatMap(([x, y]) => toPlane(x, y)).map((value) => Number(value.toPrecision(5))));
  };
  const onKeyDown = (event) => {
    if (!map) return;
    const far = 60 / view.current.scale;
    const steps = {ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far]};
    if (steps[event.key]) {
      view.current.x += steps[event.key][0];
      view.current.y += steps[event.key][1];
      repaint();
    } else if (event.key === '+' || event.key === '=') zoom(1.3);
    else if (event.key === '-') zoom(1 / 1.3);
    else if (event.key === 'Enter') inView();
    else return;
    event.preventDefault();
  };
  return html`<section class="map" aria-label="Map">
    <div class="bar"><div class="buttons" role="group" aria-label="What dragging does">
        <button aria-pressed=${tool === 'pan'} onClick=${() => setTool('pan')}>Move</button>
        <button aria-pressed=${tool === 'lasso'} onClick=${() => setTool('lasso')} title="Or drag with Shift">Lasso</button></div>
      <button aria-label="Zoom in" onClick=${() => map && zoom(1.5)}>+</button><button aria-label="Zoom out" onClick=${() => map && zoom(1 / 1.5)}>−</button>
      <button onClick=${() => { if (map) { fit(); repaint(); } }}>Whole map</button>
      <button onClick=${() => map && inView()}>Take what is in view</button>
      ${lasso && html`<button onClick=${() => change({lasso: null})}>Clear the lasso</button>`}
      ${inside && html`<button class="primary" onClick=${() => change({view: 'search'})}>Show ${plural(inside.size, 'picture')}</button>`}
      ${map?.colours.length > 0 && html`<label>Colour <select value=${shown.name} onChange=${(event) => change({colour: event.target.value}, true)}>
        ${map.colours.map(({name}) => html`<option value=${name}>${name}</option>`)}</select></label>`}
      ${map && html`<button disabled=${!parquet} title=${parquet ? 'A file for embedding-atlas and others' : "Wants pyarrow: pip install 'retrieval[parquet]'"}
        onClick=${() => download('v1/map?format=parquet', null, 'map.parquet').catch(report)}>Parquet</button>
      <span class="hint">${plural(map.rows.length, 'picture')}</span>`}</div>
    ${!map && html`<${Working} title="Making the map" progress=${progress} />`}
    ${generation !== seen && html`<p class="note">Pictures came or went. <button onClick=${() => setSeen(generation)}>Make the map anew</button></p>`}
    ${shown && html`<${Legend} shown=${shown} palette=${palette} only=${only} setOnly=${setOnly} />`}
    <div class="plane"><canvas ref=${canvas} tabindex="0" role="img" class=${tool} onKeyDown=${onKeyDown}
        aria-label="Map of the pictures: arrow keys move, plus and minus zoom, Enter takes what is in view"
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${up} onPointerCancel=${up} onPointerLeave=${() => setHover(null)}></canvas>
      ${hover && html`<div class="tip" style=${{left: `${Math.min(hover.x + 14, canvas.current.clientWidth - 150)}px`, top: `${Math.min(hover.y + 14, canvas.current.clientHeight - 150)}px`}}>
        ${hasPictures && html`<img src=${thumbnail(hover.row)} alt="" />`}${hover.label != null && html`<span>${hover.label}</span>`}</div>`}</div>
  </section>`;
}
