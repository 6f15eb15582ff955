// Right and wrong: what was marked becomes a trained projection beside the model, which can be used and put back.
import {html, useEffect, useState, Working, announce, percent, plural, score, thumbnail, uploaded} from './ui.js';
import {get, post, postAndWait} from './api.js';

const NAMES = {ordered: 'a right result stands above a wrong one'};

function Results({before, after}) {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => typeof (after[name] ?? before[name]) === 'number');
  return html`<table><caption>On marks that the training did not see</caption>
    <thead><tr><th scope="col">How often</th><th scope="col">original</th><th scope="col">trained</th></tr></thead>
    <tbody>${names.map((name) => html`<tr><th scope="row">${NAMES[name] || name}</th><td>${percent(before[name])}</td>
      <td class=${after[name] > before[name] ? 'better' : after[name] < before[name] ? 'worse' : ''}>${percent(after[name])}</td></tr>`)}</tbody></table>`;
}

function Changed({changes}) {
  return html`<h3>Marks that move most</h3><ul class="changed">${changes.map((change, at) => {
    const query = change.upload ? uploaded(change.upload) : change.query_row != null ? thumbnail(change.query_row) : null;
    return html`<li key=${at}>${query && html`<img src=${query} alt="the query" loading="lazy" /><span aria-hidden="true">→</span>`}
      <img src=${thumbnail(change.row)} alt=${change.name} loading="lazy" />
      <span class=${change.right ? 'mark yes' : 'mark no'}>${change.right ? '✓ right' : '✗ wrong'}</span>
      <span>score ${score(change.before)} → <strong>${score(change.after)}</strong></span></li>`;
  })}</ul>`;
}

export function MarksView({info, refresh, report, readOnly}) {
  const [counts, setCounts] = useState(null);
  const [result, setResult] = useState(null);
  const [busy, setBusy] = useState('');
  const [progress, setProgress] = useState(null);
  useEffect(() => { get('v1/feedback').then(setCounts, report); }, [info.generation]);
  const trained = counts?.use === 'trained';
  const act = async (name, task) => {
    setBusy(name);
    try {
      await task();
    } catch (error) {
      report(error);
    }
    setBusy('');
  };
  const train = () => act('Training', async () => { setProgress(null); setResult(await postAndWait('v1/training', {}, setProgress)); announce('Trained'); });
  const use = (which) => act('Switching', async () => { setCounts(await post('v1/model', {use: which})); await refresh(); announce(`The ${which} model is in use`); });
  const ready = counts?.trained || result;
  return html`<section class="marks" aria-label="Right and wrong">
    <p>Search with one picture and mark results as right (✓) or wrong (✗). The marks are kept in ${counts?.file ? html`<code>${counts.file}</code>` : 'a file'}, which${' '}
      <code>train_on_embeddings --marks</code> and <code>calibrate --marks</code> take too; a projection trained on them sits beside the model until you switch to it, and you can always switch back.</p>
    <p class="tally">${counts && html`<strong>${plural(counts.right, 'right mark')}, ${plural(counts.wrong, 'wrong mark')}</strong>`}
      ${' '}In use: the <strong>${trained ? 'trained' : 'original'}</strong> model.</p>
    <p class="buttons">
      <button class="primary" disabled=${readOnly || !!busy || !counts?.can_train} onClick=${train}>Train on the marks</button>
      ${ready && !trained && html`<button disabled=${!!busy} onClick=${() => use('trained')}>Use the trained model</button>`}
      ${trained && html`<button disabled=${!!busy} onClick=${() => use('original')}>Back to the original model</button>`}
    </p>
    ${busy && html`<${Working} title=${busy} progress=${busy === 'Training' ? progress : null} />`}
    ${counts && !counts.can_train && html`<p class="hint">Training wants ${plural(counts.needed, 'mark')} or more, some right and some wrong.</p>`}
    ${result && html`<${Results} before=${result.before} after=${result.after} />
      ${result.changed.length > 0 && html`<${Changed} changes=${result.changed} />`}`}
  </section>`;
}
