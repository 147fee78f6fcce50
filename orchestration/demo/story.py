"""The story itself, in the order of its days. Imported only once the process has moved into the demo's folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from ml.config import UserError
from orchestration import automation, champion, evidence, reviewing
from orchestration.definitions import defs
from orchestration.demo import traffic
from orchestration.demo.timeline import Measured, Timeline
from orchestration.demo.traffic import Asked, Recording
from orchestration.demo.world import Accelerated, restamp
from orchestration.runs import metadata_of, prepare_instance, run_job
from serving import client, packaging

A_DAY = 150  # requests with a recording
LOG_S = 3.0  # after which the service has surely written what it logged
PATIENCE_S = 60.0
USUAL, NEW = "usual speakers", "new speaker, noisy line"


class Story:
    """One service, one Dagster instance, one project, and what happens to them."""

    def __init__(self, project: Accelerated, instance: dg.DagsterInstance, timeline: Timeline):
        self.project, self.paths, self.instance, self.timeline = project, project.paths, instance, timeline
        self.speaker = traffic.NewSpeaker(seed=0)
        self.url = ""

    @property
    def day(self) -> int:
        return self.project.days[0]

    def tell(self, what: str, mark: str = "") -> None:
        self.timeline.tell(self.day, what, mark)

    def run(self, job: str, config: Mapping | None = None, **more: Any) -> dg.ExecuteInProcessResult:
        resources = {"project": self.project}
        return run_job(defs.resolve_job_def(job), self.instance, config, resources=resources, **more)

    def begin(self) -> None:
        self.tell("the lineage runs: data, checks, models, evaluation, champion, Bento")
        self.run("lineage")
        self.tell(f"champion {self._champion()['tag']}: {self._champion()['reason']}", "first champion")

    def live(self, recordings: Sequence[Recording], who: str) -> tuple[Measured, list[Asked]]:
        """A day's recordings, asked and judged by what was really said, and its log set back to the story's day."""
        asked = traffic.ask(self.url, recordings)
        right = sum(one.right for one in asked)
        measured = self.timeline.measure(Measured(self.day, who, right, len(asked), asked[-1].model))
        return measured, asked

    def report(self) -> Mapping:
        """The drift report of the day, as its job makes it; what it says."""
        traffic.show_pictures(self.url, self.paths, seed=self.day)
        time.sleep(LOG_S)
        restamp(self.paths, self.project.back())
        day = self.project.now().date().isoformat()
        self.run("drift_monitoring", partition_key=day)
        verdict = json.loads((self.paths.reports / "drift" / day / "verdict.json").read_text())
        causes = "; ".join(verdict["causes"]) or "nothing differs"
        alarm = ", ALARM" if verdict.get("alarm") else ""
        self.tell(f"drift report: {verdict['state']}{alarm}: {causes}", "drift" if verdict["state"] == "drift" else "")
        return verdict

    def decide(self) -> bool:
        """Let the policy decide; run the retraining that it asks for. Whether it asked for one."""
        decision, *_ = automation.decided(self.instance, self.project)
        self.tell(f"policy: {'retrain' if decision.start else 'no retraining'}: {decision.reason}")
        if decision.start:
            asked = automation.request(decision, self.project.now())
            result = self.run("retraining", tags=dict(asked.tags))
            self._tell_gate(result)
        return decision.start

    def _tell_gate(self, result: dg.ExecuteInProcessResult) -> None:
        judged = metadata_of(result, "champion")
        self.tell(f"gate: {judged['reason']}", "promoted" if judged["promoted"] else "kept out")
        if not judged["promoted"]:
            raise UserError(f"the challenger lost at the gate: {judged['reason']}")

    def await_takeover(self, recording: Recording) -> None:
        """Ask until the champion answers."""
        digest, begun = self._champion()["digest"], time.monotonic()
        while traffic.ask(self.url, [recording])[0].model != digest:
            if time.monotonic() - begun > PATIENCE_S:
                raise UserError(f"the service did not take up {digest[:12]} within {PATIENCE_S:g} s")
            time.sleep(0.1)
        self.tell(f"the running service answers with {digest[:8]}, {time.monotonic() - begun:.1f} s after the asset")

    def review(self) -> None:
        """Somebody accepts every correction (`seehear review --accept all`); they become one added shard under DVC."""
        if reviewing.main(["accept", "all"]) != reviewing.DONE:
            raise UserError("the corrections could not be accepted")
        new = evidence.new_labels(self.paths, self._champion()["added"])
        self.tell(f"reviewed: {new} recordings are an added shard under DVC", "corrections added")

    def roll_back(self) -> None:
        reason = "shown in the demo"
        config = {"roll_back_to": "previous", "reason": reason}
        self.run("rollback", {"champion": {"config": config}})
        self.tell(f"rollback to {self._champion()['tag']}: {reason}", "rollback")

    def _champion(self) -> dict:
        return champion.usable_pointer(self.paths)


def tell(project: Accelerated, out: Path) -> list[Measured]:
    """Run the whole story; returns what was measured, and leaves timeline.md, .json and .png in `out`."""
    prepare_instance(project.paths.root)
    timeline = Timeline()
    with dg.DagsterInstance.get() as instance:
        story = Story(project, instance, timeline)
        try:
            story.begin()
            bento = packaging.bento_of(packaging.read_champion(story.paths).tag, story.paths)
            with client.serve(bento, story.paths, env={"SEEHEAR_FOLLOW": "1"}) as story.url:
                _days(story)
        finally:
            plot = timeline.keep(out)
            print(f"\ntimeline: {plot.with_suffix('.md')}\nplot: {plot}")
    return timeline.measured


def _days(story: Story) -> None:
    story.project.pass_days(1)
    story.live(traffic.usual(story.paths, A_DAY, seed=1), USUAL)
    story.report()
    for _ in range(2):
        story.project.pass_days(1)
        _, asked = story.live(story.speaker.recordings(A_DAY), NEW)
        taken = traffic.correct(story.url, asked)
        story.tell(f"{taken} corrections came to /feedback, with consent")
        story.report()
    story.project.pass_days(1)
    story.decide()
    story.review()
    if not story.decide():
        raise UserError("the policy asked for no retraining")
    another = story.speaker.recordings(1)[0]
    story.await_takeover(another)
    story.project.pass_days(1)
    story.live(story.speaker.recordings(A_DAY), NEW)
    story.live(traffic.usual(story.paths, A_DAY, seed=2), USUAL)
    story.roll_back()
    story.await_takeover(another)
    story.project.pass_days(1)
    story.live(story.speaker.recordings(A_DAY - 1), NEW)
