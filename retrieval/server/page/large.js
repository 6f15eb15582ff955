// One picture large, with what is known of it and its neighbours; arrow keys go through the results.
import {html, useEffect, useState, Dialog, Thumbnail, announce, bytes, isTyping, percent, plural, score} from './ui.js';
import {get, post} from './api.js';
import {remember, rowOf} from './known.js';
import {Crop, BoxFields} from './crop.js';

const hidden = new Set(['row', 'stacked', 'metadata', 'match', 'width', 'height', 'score', 'probability', 'generation', 'box', 'query_box', 'inliers', 'mirrored']);
const text = (name, value) => (name === 'bytes' || name === 'size' ? bytes(Number(value))
  : typeof value === 'object' ? JSON.stringify(value) : String(value));

export function Large({id, items, onEnd, actions, markOf, canMark, hasPictures, generation, report}) {
  const at = items.findIndex((item) => item.id === id);
  const [found, setFound] = useState(null);
  const [neighbours, setNeighbours] = useState([]);
  const [box, setBox] = useState(null);
  const row = rowOf(id);
  const shown = found?.id === id ? found : at >= 0 ? items[at] : null;
  const listed = at >= 0 ? items[at] : null;

  useEffect(() => {
    setBox(null);
    const abort = new AbortController();
    const {signal} = abort;
    const search = post('v1/search', {queries: [{id}], k: 12}, {signal}).then((answer) => {
      remember([...answer.queries, ...answer.results]);
      setNeighbours(answer.results);
    });
    const known = rowOf(id) === undefined ? search : Promise.resolve();
    Promise.all([search, known.then(() => get(`v1/items/${rowOf(id)}`, {signal})).then((item) => { setFound(item); announce(item.name); })])
      .catch((error) => { if (error.name !== 'AbortError') { report(error); actions.close(); } });
    return () => abort.abort();
  }, [id, generation]);

  useEffect(() => { if (at >= 0 && at + 3 >= items.length) onEnd(); }, [at]);
  const step = (by) => items[at + by] && actions.show(items[at + by]);
  const onKeyDown = (event) => {
    if (isTyping(event)) return;
    if (event.key === 'ArrowRight') step(1);
    else if (event.key === 'ArrowLeft') step(-1);
    else if (event.key === 'm') actions.more({id});
    else if (canMark && listed && event.key === 'y') actions.right(listed);
    else if (canMark && listed && event.key === 'n') actions.wrong(listed);
    else return;
    event.preventDefault();
  };
  const known = shown && [
    ...(listed?.score != null ? [['score', score(listed.score)]] : []),
    ...(listed?.probability != null ? [['probability', percent(listed.probability)]] : []),
    ...(listed?.box ? [['found by', `${plural(listed.inliers, 'matching point')}${listed.mirrored ? ', mirrored' : ''}`]] : []),
    ...(shown.width ? [['pixels', `${shown.width} × ${shown.height}`]] : []),
    ...Object.entries({...shown, ...shown.metadata}).filter(([name, value]) => !hidden.has(name) && value != null && value !== '')
      .map(([name, value]) => [name, text(name, value)]),
  ];
  const mark = listed && markOf(listed);
  return html`<${Dialog} label=${shown?.name || 'Picture'} onClose=${actions.close} className="large">
    <div class="frame" onKeyDown=${onKeyDown}>
      <header><h2>${shown?.name}</h2>
        ${at >= 0 && html`<span class="hint">${at + 1} of ${items.length}</span>`}
        <button aria-label="Previous picture" title="Previous (←)" disabled=${at <= 0} onClick=${() => step(-1)}>←</button>
        <button aria-label="Next picture" title="Next (→)" disabled=${at < 0 || at + 1 >= items.length} onClick=${() => step(1)}>→</button>
        <button aria-label="Close" title="Close (Esc)" onClick=${actions.close}>×</button></header>
      <div class="stage">
        ${hasPictures && shown ? html`<${Crop} key=${id} src=${`v1/image/${row}`} alt=${shown.name} width=${shown.width} height=${shown.height} box=${box} onBox=${setBox} found=${listed?.box}
            onError=${() => report(new Error(`The picture ${shown.name} cannot be shown.`))} />`
          : html`<p>${shown?.id}</p>`}</div>
      <aside aria-label="About this picture">
        <p class="buttons">
          <button class="primary" onClick=${() => actions.more({id, part: box || undefined})}>${box ? 'Search with this part' : 'More like this'}</button>
          <button onClick=${() => actions.plus({id, part: box || undefined})}>+ Add to the query</button>
          <button onClick=${() => actions.minus({id, part: box || undefined})}>− Less like this</button>
          ${canMark && listed && html`<button aria-pressed=${mark === true} onClick=${() => actions.right(listed)}>✓ Right</button>
            <button aria-pressed=${mark === false} onClick=${() => actions.wrong(listed)}>✗ Wrong</button>`}
          ${shown && html`<button onClick=${() => actions.copy([shown])}>Copy the path</button>`}
          ${hasPictures && html`<a class="button" href=${`v1/image/${row}`} download=${shown?.name}>Download</a>`}</p>
        ${hasPictures && html`<p class="hint">Draw a rectangle on the picture to search with that part.</p>
          <details><summary>Part by numbers</summary><${BoxFields} box=${box} onBox=${setBox} /></details>`}
        ${known && html`<dl>${known.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`}
        ${neighbours.length > 0 && html`<h3>Neighbours</h3><ul class="neighbours" aria-label="Neighbours">
          ${neighbours.map((item) => html`<li key=${item.row}><button aria-label=${`${item.name}, score ${score(item.score)}`} onClick=${() => actions.show(item)}>
            <${Thumbnail} row=${item.row} name=${item.id} pictured=${hasPictures} /><span>${score(item.score)}</span></button></li>`)}</ul>`}
      </aside></div>
  <//>`;
}
