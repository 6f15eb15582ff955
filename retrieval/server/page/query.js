// What is searched for: pictures that are dropped, chosen, pasted or taken, rows, and words; each a chip with its weight.
import {html, useEffect, useRef, useState, Dialog, announce, thumbnail, uploaded} from './ui.js';
import {upload} from './api.js';
import {rowOf} from './known.js';
import {Crop, BoxFields, boxStyle} from './crop.js';
import {formatQuery} from './state.js';

const source = (query) => (query.upload ? uploaded(query.upload) : `v1/image/${rowOf(query.id)}`);
const small = (query) => (query.upload ? uploaded(query.upload) : thumbnail(rowOf(query.id)));
const shows = (query, hasPictures) => !query.text && (query.upload || hasPictures && rowOf(query.id) !== undefined);
const title = (query) => (query.text ? `“${query.text}”` : query.upload ? 'your picture' : query.id.split('/').pop()) + (query.box ? ', a part of it' : '');

/** Searching with files: they replace the query unless `add`. */
export function useUploads(change, report) {
  const [waiting, setWaiting] = useState(0);
  const take = async (files, add = false) => {
    const pictures = [...files].filter((file) => !file.type || file.type.startsWith('image/'));
    if (!pictures.length) {
      if (files.length) report(new Error(`${files[0].name} is no picture: give a JPEG, PNG, WebP, GIF, BMP or TIFF.`));
      return;
    }
    setWaiting((count) => count + pictures.length);
    announce('Sending the picture');
    const kept = [];
    for (const file of pictures) {
      try {
        kept.push({upload: (await upload(file)).upload, weight: 1});
      } catch (error) {
        report(error);
      }
      setWaiting((count) => count - 1);
    }
    if (kept.length) {
      change((state) => ({view: 'search', queries: add ? [...state.queries, ...kept] : kept, open: null, sort: 'score'}));
    }
  };
  return [take, waiting];
}

/** Pictures dropped or pasted anywhere on the page. */
export function useDropAndPaste(take) {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const holdsFiles = (event) => [...event.dataTransfer?.types || []].includes('Files');
    let depth = 0;
    const listeners = {
      dragenter: (event) => { if (holdsFiles(event)) { event.preventDefault(); depth += 1; setOver(true); } },
      dragleave: (event) => { if (holdsFiles(event) && --depth <= 0) { depth = 0; setOver(false); } },
      dragover: (event) => { if (holdsFiles(event)) event.preventDefault(); },
      drop: (event) => {
        depth = 0;
        setOver(false);
        if (!holdsFiles(event)) return;
        event.preventDefault();
        take(event.dataTransfer.files, event.shiftKey);
      },
      paste: (event) => {
        const files = [...event.clipboardData?.files || []];
        if (!files.length) return;
        event.preventDefault();
        take(files);
      },
    };
    for (const [name, listener] of Object.entries(listeners)) addEventListener(name, listener);
    return () => { for (const [name, listener] of Object.entries(listeners)) removeEventListener(name, listener); };
  }, [take]);
  return over;
}

function Camera({onClose, onPicture}) {
  const video = useRef();
  const [problem, setProblem] = useState('');
  useEffect(() => {
    let stream;
    let closed = false;
    navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}}).then((opened) => {
      stream = opened;
      if (closed) stream.getTracks().forEach((track) => track.stop());
      else video.current.srcObject = stream;
    }, (error) => setProblem(`No camera: ${error.message}.`));
    return () => { closed = true; stream?.getTracks().forEach((track) => track.stop()); };
  }, []);
  const shoot = () => {
    const canvas = document.createElement('canvas');
    canvas.width = video.current.videoWidth;
    canvas.height = video.current.videoHeight;
    canvas.getContext('2d').drawImage(video.current, 0, 0);
    canvas.toBlob((blob) => { onPicture(blob); onClose(); }, 'image/jpeg', 0.92);
  };
  return html`<${Dialog} label="Take a picture" onClose=${onClose} className="narrow">
    <h2>Take a picture</h2>
    ${problem ? html`<p role="alert">${problem}</p>` : html`<video ref=${video} autoplay playsinline muted></video>`}
    <p class="buttons">
      <button class="primary" disabled=${!!problem} onClick=${shoot}>Take it</button>
      <button onClick=${onClose}>Cancel</button></p>
  <//>`;
}

function EditChip({query, pictured, onChange, onClose}) {
  return html`<${Dialog} label="Part and weight of the query" onClose=${onClose} className="edit">
    <h2>${query.text ? `Weight of ${title(query)}` : 'Part and weight'}</h2>
    ${pictured && html`<p class="hint">Draw a rectangle on the picture to search with that part.</p>
    <${Crop} src=${source(query)} alt=${title(query)} box=${query.box} onBox=${(box) => onChange({...query, box})} />
    <${BoxFields} box=${query.box} onBox=${(box) => onChange({...query, box})} />`}
    <label class="weight">Weight <input type="number" step="0.1" value=${query.weight} onChange=${(event) =>
      Number(event.target.value) && onChange({...query, weight: Number(event.target.value)})} /></label>
    <p class="buttons"><button class="primary" onClick=${onClose}>Done</button>
      ${query.box && html`<button onClick=${() => onChange({...query, box: undefined})}>Whole picture</button>`}</p>
  <//>`;
}

/** A line for words; a minus before them takes them away. */
function Words({queries, onQueries}) {
  const [text, setText] = useState('');
  const send = (event) => {
    event.preventDefault();
    const [, minus, words] = /^(\s*[-−](?=\S))?(.*)$/s.exec(text);
    if (!words.trim()) return;
    onQueries([...queries, {text: words.trim(), weight: minus ? -1 : 1}]);
    setText('');
  };
  return html`<form class="words" role="search" onSubmit=${send}>
    <input type="search" value=${text} maxlength="2000" aria-label="Words to search for" enterkeyhint="search"
      placeholder=${queries.length ? 'and words, or -words' : 'Words to search for'} onInput=${(event) => setText(event.target.value)} />
    <button class=${queries.length ? '' : 'primary'} disabled=${!text.trim()}>${queries.length ? 'Add' : 'Search'}</button></form>`;
}

function Chip({query, hasPictures, onChange, onRemove, onEdit}) {
  const minus = query.weight < 0;
  const name = title(query);
  return html`<li class=${minus ? 'chip minus' : 'chip'}>
    <button class="part" onClick=${onEdit} aria-label=${query.text ? `Weight of ${name}` : `Part and weight of ${name}`} title=${query.text ? 'Weight' : 'Part and weight'}>
      ${shows(query, hasPictures) ? html`<img src=${small(query)} alt="" />` : html`<span class=${query.text ? 'written' : 'no-picture'}>${name}</span>`}${query.box && html`<span class="box" style=${boxStyle(query.box)}></span>`}</button>
    <button class="sign" aria-pressed=${minus} aria-label=${`Less like ${name}`}
      title=${minus ? 'Less like this: press for more' : 'More like this: press for less'}
      onClick=${() => onChange({...query, weight: -query.weight})}>${minus ? '−' : '+'}${Math.abs(query.weight) === 1 ? '' : Math.abs(query.weight)}</button>
    <button class="remove" aria-label=${`Remove ${name}`} onClick=${onRemove}>×</button>
  </li>`;
}

export function QueryBar({queries, change, take, waiting, hasPictures, hasWords}) {
  const files = useRef();
  const camera = useRef();
  const [editing, setEditing] = useState(null);
  const [shooting, setShooting] = useState(false);
  const set = (next) => change({queries: next});
  const chosen = (event) => { take([...event.target.files], event.target.dataset.add === '1'); event.target.value = ''; };
  const choose = (add) => { files.current.dataset.add = add ? '1' : ''; files.current.click(); };
  const shoot = () => (navigator.mediaDevices?.getUserMedia ? setShooting(true) : camera.current.click());
  if (!hasPictures && !hasWords && !queries.length) return null;
  return html`<section class="query" aria-label="Query">
    <input ref=${files} class="file" type="file" accept="image/*" multiple hidden onChange=${chosen} />
    <input ref=${camera} class="file" type="file" accept="image/*" capture="environment" hidden onChange=${chosen} />
    ${queries.length > 0 && html`<ul class="chips" aria-label="Searching for">
      ${queries.map((query, at) => html`<${Chip} key=${at + formatQuery(query)} query=${query} hasPictures=${hasPictures} onEdit=${() => setEditing(at)}
        onChange=${(changed) => set(queries.map((other, here) => (here === at ? changed : other)))}
        onRemove=${() => set(queries.filter((_, here) => here !== at))} />`)}</ul>`}
    ${hasWords && html`<${Words} queries=${queries} onQueries=${(next) => change({queries: next, view: 'search', open: null, sort: 'score'})} />`}
    ${hasPictures && html`<div class="ways">
      <button class=${queries.length || hasWords ? '' : 'primary'} onClick=${() => choose(queries.length > 0)}>
        ${queries.length ? 'Add a picture' : 'Choose a picture'}</button>
      <button onClick=${shoot}>Camera</button>
      ${queries.length > 0 && html`<button onClick=${() => set([])}>Clear</button>`}
      <span class="hint">${waiting ? 'Sending …' : queries.length ? '' : 'or drop one anywhere, or paste a screenshot (Ctrl+V)'}</span>
    </div>`}
    ${editing !== null && queries[editing] && html`<${EditChip} query=${queries[editing]} pictured=${shows(queries[editing], hasPictures)} onClose=${() => setEditing(null)}
      onChange=${(changed) => set(queries.map((other, here) => (here === editing ? changed : other)))} />`}
    ${shooting && html`<${Camera} onClose=${() => setShooting(false)} onPicture=${(blob) => take([blob], queries.length > 0)} />`}
  </section>`;
}
