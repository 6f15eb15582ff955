// Groups of near-identical pictures; the outcome is a plan file, nothing is deleted or moved here.
import {html, useEffect, useMemo, useState, Dialog, Thumbnail, Working, announce, bytes, plural, score} from './ui.js';
import {postAndWait, download} from './api.js';

function Compare({left, right, onClose}) {
  const [way, setWay] = useState('slider');
  const [at, setAt] = useState(50);
  const same = left.width / left.height / (right.width / right.height);
  return html`<${Dialog} label="Compare two pictures" onClose=${onClose} className="compare">
    <h2>${left.name} and ${right.name}</h2>
    <div class="buttons" role="group" aria-label="How to compare">
      ${[['slider', 'Slider'], ['difference', 'Difference'], ['beside', 'Side by side']].map(([name, label]) => html`
        <button aria-pressed=${way === name} onClick=${() => setWay(name)}>${label}</button>`)}
      <button onClick=${onClose}>Close</button></div>
    ${way === 'beside'
      ? html`<div class="beside">${[left, right].map((item) => html`<figure><img src=${`v1/image/${item.row}`} alt=${item.name} />
          <figcaption>${item.name}, ${item.width} × ${item.height}</figcaption></figure>`)}</div>`
      : html`<div class=${'over ' + way} style=${{aspectRatio: `${left.width} / ${left.height}`}}>
          <img src=${`v1/image/${left.row}`} alt=${left.name} />
          <img src=${`v1/image/${right.row}`} alt=${right.name} style=${way === 'slider' ? {clipPath: `inset(0 0 0 ${at}%)`} : {clipPath: 'none'}} />
          ${way === 'slider' && html`<span class="edge" style=${{left: `${at}%`}}></span>`}</div>
        ${way === 'slider' ? html`<label class="wide">${left.name} ↔ ${right.name}
          <input type="range" min="0" max="100" value=${at} onInput=${(event) => setAt(Number(event.target.value))} /></label>`
          : html`<p class="hint">Black where both are equal; the difference is made four times as bright.</p>`}
        ${Math.abs(same - 1) > 0.02 && html`<p class="hint">The two have different shapes: the second is stretched over the first.</p>`}`}
  <//>`;
}

function Group({group, hasPictures, number, keep, included, onKeep, onInclude, onCompare, onOpen}) {
  const best = group.members.find((member) => member.row === keep);
  return html`<li class=${included ? 'group' : 'group out'}><fieldset>
    <legend><label><input type="checkbox" checked=${included} onChange=${(event) => onInclude(event.target.checked)} /> Group ${number}: ${plural(group.members.length, 'picture')}</label></legend>
    <div class="members">${group.members.map((member) => html`<div key=${member.row} class=${member.row === keep ? 'member kept' : 'member'}>
      <button class="picture" aria-label=${`Open ${member.name}`} onClick=${() => onOpen(member.row)}><${Thumbnail} row=${member.row} name=${member.name} pictured=${hasPictures} /></button>
      <label class="keep"><input type="radio" name=${`keep-${number}`} checked=${member.row === keep} onChange=${() => onKeep(member.row)} />
        keep${member.row === group.best ? ' (proposed)' : ''}</label>
      ${member.proof && html`<span class=${member.sure ? 'proof' : 'proof unsure'}>${member.proof}${member.as_name ? ` as ${member.as_name.split('/').pop()}` : ''}</span>`}
      <span class="name" title=${member.name}>${member.name}</span>
      <span class="hint">${member.width ? `${member.width} × ${member.height}` : ''}${member.bytes ? `, ${bytes(member.bytes)}` : ''}${member.date ? html`<br />${String(member.date).slice(0, 10)}` : ''}
        ${member.row !== group.best && member.score != null ? ` score ${score(member.score)}` : ''}</span>
      ${hasPictures && member.row !== keep && html`<button onClick=${() => onCompare(best, member)} aria-label=${`Compare ${member.name} with ${best.name}`}>Compare</button>`}
    </div>`)}</div></fieldset></li>`;
}

export function DuplicatesView({threshold, prove, change, report, onOpen, generation, hasPictures}) {
  const [groups, setGroups] = useState(null);
  const [progress, setProgress] = useState(null);
  const [kept, setKept] = useState({});
  const [left, setLeft] = useState(new Set());
  const [pair, setPair] = useState(null);
  const [shown, setShown] = useState(50);
  const [seen, setSeen] = useState(generation);
  useEffect(() => {
    const abort = new AbortController();
    setGroups(null);
    setProgress(null);
    postAndWait('v1/duplicates', prove ? {prove} : {threshold}, setProgress, {signal: abort.signal}).then((answer) => {
      setGroups(answer.groups);
      setKept({});
      setLeft(new Set());
      announce(`${answer.groups.length} groups of near-identical pictures`);
    }, (error) => error.name !== 'AbortError' && (report(error), setGroups([])));
    return () => abort.abort();
  }, [threshold, prove, seen]);
  const keyed = useMemo(() => (groups || []).map((group) => ({...group, key: group.members.map((member) => member.row).join()})), [groups]);
  const chosen = keyed.filter((group) => !left.has(group.key));
  // what was proved to be more than the same stays: crops, edited ones and other shots are for people to judge
  const others = (group) => group.members.filter((member) => !prove || member.sure || member.row === group.best)
    .map((member) => member.row).filter((row) => row !== (kept[group.key] ?? group.best));
  const surplus = chosen.reduce((sum, group) => sum + others(group).length, 0);
  const freed = chosen.reduce((sum, group) => sum + group.members.filter((member) => others(group).includes(member.row))
    .reduce((all, member) => all + (member.bytes || 0), 0), 0);
  const plan = () => download('v1/duplicates/plan', {
    groups: chosen.map((group) => ({keep: kept[group.key] ?? group.best, others: others(group)})),
  }, 'duplicates-plan.csv').catch(report);
  return html`<section class="duplicates" aria-label="Duplicates">
    <div class="bar"><label title="Compare the pictures themselves: same bytes, same pixels, re-encoded, resized, cropped, edited, burst"><input type="checkbox" checked=${prove}
        onChange=${(event) => change({prove: event.target.checked})} /> Prove</label>
      ${!prove && html`<label>Near-identical from a score of <output>${threshold.toFixed(2)}</output>
      <input type="range" min="0.7" max="1" step="0.01" value=${threshold} onChange=${(event) => change({threshold: Number(event.target.value)}, true)} /></label>`}
      <button class="primary" disabled=${!chosen.length} onClick=${plan}>Save the plan</button>
      <span class="hint">${groups !== null && html`${plural(keyed.length, 'group')}, ${plural(surplus, 'picture')} to spare${freed ? ` (${bytes(freed)})` : ''}.${' '}
        ${prove ? 'Spared is what is the same, re-encoded or resized; the others are for you to look at. ' : ''}The plan is a file for you: nothing is deleted or moved here.`}</span></div>
    ${groups === null && html`<${Working} title="Looking for duplicates" progress=${progress} />`}
    ${generation !== seen && html`<p class="note">Pictures came or went. <button onClick=${() => setSeen(generation)}>Look again</button></p>`}
    ${groups?.length === 0 && html`<p class="empty">${prove ? 'No two pictures are proved to be one.' : 'No two pictures are that similar.'}</p>`}
    <ol class="groups">${keyed.slice(0, shown).map((group, at) => html`<${Group} key=${group.key} group=${group} hasPictures=${hasPictures} number=${at + 1} keep=${kept[group.key] ?? group.best}
      included=${!left.has(group.key)} onOpen=${onOpen} onKeep=${(row) => setKept({...kept, [group.key]: row})} onCompare=${(first, second) => setPair([first, second])}
      onInclude=${(yes) => { const next = new Set(left); if (yes) next.delete(group.key); else next.add(group.key); setLeft(next); }} />`)}</ol>
    ${keyed.length > shown && html`<p class="more"><button onClick=${() => setShown(shown + 50)}>Show more (${keyed.length - shown} left)</button></p>`}
    ${pair && html`<${Compare} left=${pair[0]} right=${pair[1]} onClose=${() => setPair(null)} />`}
  </section>`;
}
