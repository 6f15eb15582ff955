// Right and wrong: what was marked becomes a trained projection beside the model, which can be used and put back.
import {html, useEffect, useState, announce, plural, thumbnail} from './ui.js';
import {get, post} from './api.js';

function Results({before, after}) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => typeof (after[name] ?? before[name]) === 'number');
  const say = (value) => (value == null ? '–' : Number.isInteger(value) ? value : value.toFixed(3));
  return html`<table><caption>On marks that the training did not see</caption>
    <thead><tr><th scope="col">metric</th><th scope="col">now</th><th scope="col">trained</th></tr></thead>
    <tbody>${names.map((name) => html`<tr><th scope="row">${name}</th><td>${say(before[name])}</td>
      <td class=${after[name] > before[name] ? 'better' : after[name] < before[name] ? 'worse' : ''}>${say(after[name])}</td></tr>`)}</tbody></table>`;
}

export function MarksView({info, refresh, report, readOnly}) {
  const [counts, setCounts] = useState(null);
  const [result, setResult] = useState(null);
  const [busy, setBusy] = useState('');
  useEffect(() => { get('v1/feedback').then(setCounts, report); }, []);
  const trained = info.use === 'trained';
  const act = async (name, task) => {
    setBusy(name);
    try {
      await task();
    } catch (error) {
      report(error);
    }
    setBusy('');
  };
  const train = () => act('Training …', async () => { setResult(await post('v1/training', {})); announce('Trained'); });
  const use = (which) => act('Switching …', async () => { await post('v1/model', {use: which}); await refresh(); announce(`The ${which} model is in use`); });
  const ready = info.trained || result || trained;
  return html`<section class="marks" aria-label="Right and wrong">
    <p>Search with one picture and mark results as right (✓) or wrong (✗). The marks are kept in a file;
      a projection trained on them sits beside the model until you switch to it, and you can always switch back.</p>
    <p class="tally">${counts && html`<strong>${plural(counts.right, 'right mark')}, ${plural(counts.wrong, 'wrong mark')}</strong>`}
      ${' '}In use: the <strong>${trained ? 'trained' : 'original'}</strong> model.</p>
    <p class="buttons">
      <button class="primary" disabled=${readOnly || !!busy || !counts?.right} onClick=${train}>Train on the marks</button>
      ${ready && !trained && html`<button disabled=${!!busy} onClick=${() => use('trained')}>Use the trained model</button>`}
      ${trained && html`<button disabled=${!!busy} onClick=${() => use('original')}>Back to the original model</button>`}
      <span role="status">${busy}</span></p>
    ${result && html`<${Results} before=${result.before || {}} after=${result.after || {}} />
      ${result.changed?.length > 0 && html`<h3>Results that move</h3><ul class="changed">${result.changed.map((change, at) => html`<li key=${at}>
        ${Number.isInteger(change.query) && html`<img src=${thumbnail(change.query)} alt="query" loading="lazy" /><span aria-hidden="true">→</span>`}
        <img src=${thumbnail(change.row)} alt="result" loading="lazy" />
        <span>rank ${change.before ?? '–'} → ${change.after ?? '–'}</span></li>`)}</ul>`}`}
  </section>`;
}
