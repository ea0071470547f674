"""Stage 3, escalate: signals of all assess partitions in; alert revisions out.

1. A grave event's signal opens its alert at once: its id and content come from the event alone, so that nothing of the
   order of arrival shows. The tick only takes it back where the event was corrected or withdrawn.
2. A tick is worked on when every assess partition has reported it closed. Its primary signals open alerts, or raise
   and lower those that are open; what has not been signalled for ``hold_days`` is resolved, at exactly that tick.
3. Sources, labs and pairs, which only the whole shows, are judged here too, from the partitions' tallies
   (:mod:`streams.oversight`).
4. Dispositions take effect at the tick of their arrival, after the tick's signals.

One partition, small state: the open alerts, the ids of grave events as long as a copy may still come, and what
oversight remembers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import get_args

import msgspec

from schemas.alerts import Alert, AlertKind, Disposition, Level, Provenance, Scope, Signal, Status, Text
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from streams.config import Config
from streams.control import Control
from streams.decode import EVERYWHERE
from streams.oversight import Oversight
from streams.stored import unpack
from streams.tally import Tally
from streams.ticks import MS_PER_DAY, Calendar
from streams.wording import COLOURS, GRADES, actions, headline

__all__ = ["STATE_VERSION", "Escalate", "OpenAlert"]

STATE_VERSION = 3
VERSION = "0.1.0"
Key = tuple[str, str, str, str]
"""What an alert is about: kind, product, region, and the source or the kind of injury where it has one."""
_GROWN = 0.1


class OpenAlert(msgspec.Struct, array_like=True):
    """An alert that stands: its last revision, the instants that hysteresis needs (epoch ms), and the ids of the
    dispositions that it bears. Once it is resolved no disposition finds it any more, so they need not outlive it."""

    alert: Alert
    last_signal: int
    calmer_since: int | None = None
    calmer_level: Level = 4
    disposed: list[str] = []


class Echo(msgspec.Struct, array_like=True):
    """A cell without an alert of its own, while another cell stands for it: since when it was last an echo (epoch ms),
    and the strongest evidence that it showed as one."""

    last: int
    p_value: float


class _State(msgspec.Struct, array_like=True):
    version: int
    through: int | None
    partitions: dict[int, int]
    standing: list[OpenAlert]
    graves: dict[str, int]
    pending: list[tuple[int, Signal]]
    dispositions: list[tuple[int, Disposition]]
    echoes: list[tuple[Key, Echo]]
    regions: list[str]


class Escalate:
    """The escalate stage.

    Parameters
    ----------
    config, catalogue
        Grades, hysteresis and names.
    partitions
        How many assess partitions report; a tick waits for all of them.
    """

    def __init__(self, config: Config, catalogue: Catalogue, partitions: int) -> None:
        self._config = config
        self._catalogue = catalogue
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._through: dict[int, int] = {}
        self._partitions = partitions
        self.through: int | None = None
        self._hold_ms = _hold_ms(config)
        self._open: dict[Key, OpenAlert] = {}
        self._crowds: dict[str, set[str]] | None = None
        """By region, the branches with an open alert there; None once an alert was opened or ended, until asked for."""
        self._graves: dict[str, int] = {}
        """Ids of grave events that have rung, and when they were reported (epoch ms)."""
        self._forgotten_day: int | None = None
        self._grave_open: dict[str, OpenAlert] = {}
        self._echoes: dict[Key, Echo] = {}
        self._regions: list[str] = []
        self._pending: dict[int, dict[tuple[Key, str], Signal]] = {}
        self._dispositions: dict[int, dict[str, Disposition]] = {}
        self.oversight = Oversight(config, self._calendar)
        self._control = Control(config, self.oversight.cells)

    # --- what comes in ---------------------------------------------------------------------------------------------

    def grave(self, signal: Signal) -> list[Alert]:
        """A grave event's signal, before its tick closes; one that is known already brings nothing."""
        alert_id, reported = signal.alert_id, self._calendar.epoch_ms(signal.as_of)
        if alert_id is None or alert_id in self._graves or self._is_past(reported):
            return []
        self._graves[alert_id] = reported
        alert = self._make(signal, alert_id, signal.level, signal.scope, reported)
        self._grave_open[alert_id] = OpenAlert(alert, reported)
        return [alert]

    def _is_past(self, reported: int) -> bool:
        """Whether a grave event reported then has rung already if it ever was to, so that its id need not be held.

        Intake takes an event up to ``intake.lateness_days`` after its report, and ``state.remember_days`` are no fewer.
        When the ticks are closed beyond that, every record that could ring has been read. What comes once more, from a
        batch that is sent again after a crash, is known by its time alone.
        """
        if self.through is None:
            return False
        return reported + self._config.state.remember_days * MS_PER_DAY < self._calendar.tick_end(self.through)

    def _forget_graves(self, through: int) -> None:
        """Let go of the ids that time alone tells, once a day. When that is done cannot show."""
        day = self._calendar.day_of_tick(through)
        if day != self._forgotten_day:
            self._forgotten_day = day
            self._graves = {name: at for name, at in self._graves.items() if not self._is_past(at)}

    def offer(
        self,
        partition: int,
        through: int | None,
        signals: Iterable[Signal],
        tallies: Iterable[tuple[int, Tally]] = (),
    ) -> None:
        """A partition's signals, its tallies with their ticks, and how far it is closed; what it sent again after a
        crash is passed over."""
        seen = self._through.get(partition)
        for signal in signals:
            if seen is None or signal.tick > seen:
                self._wait(signal)
        for tick, tally in tallies:
            if seen is None or tick > seen:
                self.oversight.offer(partition, tick, tally)
        if through is not None and (seen is None or through > seen):
            self._through[partition] = through

    def _wait(self, signal: Signal) -> None:
        self._pending.setdefault(signal.tick, {})[_key(signal), signal.alert_id or ""] = signal

    def dispose(self, arrival_ms: int, disposition: Disposition) -> None:
        """A disposition, to take effect at the tick of its arrival."""
        tick = self._calendar.tick(arrival_ms)
        if self.through is None or tick > self.through:
            self._dispositions.setdefault(tick, {})[disposition.disposition_id] = disposition

    # --- closing ticks ---------------------------------------------------------------------------------------------

    def close(self) -> list[Alert]:
        """Work off every tick that all partitions have closed; alert revisions in a stated order."""
        if len(self._through) < self._partitions:
            return []
        target = min(self._through.values())
        out: list[Alert] = []
        while (tick := self._next_tick()) is not None and tick <= target:
            out += self._tick(tick)
        if self.through is None or target > self.through:
            self.through = target
            self._forget_graves(target)
        return out

    def _next_tick(self) -> int | None:
        due = [self._due(standing) for standing in self._all_open()]
        ends = [self._calendar.tick(min(due))] if due else []
        return min([*self._pending, *self._dispositions, *ends, *self.oversight.due()], default=None)

    def standing_alerts(self) -> list[Alert]:
        """The alerts that stand, each as last revised."""
        return [standing.alert for standing in self._all_open()]

    def _all_open(self) -> list[OpenAlert]:
        return [*self._open.values(), *self._grave_open.values()]

    def _due(self, standing: OpenAlert) -> int:
        return standing.last_signal + self._hold_ms[standing.alert.kind]

    def _tick(self, tick: int) -> list[Alert]:
        out: list[Alert] = []
        end = self._calendar.tick_end(tick)
        for signal in self.oversight.tick(tick):
            self._wait(signal)
        signals = self._pending.pop(tick, {})
        self._meet(sorted({signal.region for signal in signals.values()}))
        cells = sorted(signals)
        ordered = [signals[cell] for cell in cells]
        admitted = self._control.admitted(ordered)
        for at, ((key, _), signal) in enumerate(zip(cells, ordered, strict=True)):
            out += self._signal(key, signal, end, may_open=at in admitted)
        waiting = self._dispositions.pop(tick, {})
        for name in sorted(waiting):
            out += self._dispose(waiting[name], end)
        out += self._resolve_due(end)
        hold = self._config.escalate.hold_days * MS_PER_DAY
        self._echoes = {key: echo for key, echo in self._echoes.items() if end - echo.last <= hold}
        return out

    def _signal(self, key: Key, signal: Signal, end: int, *, may_open: bool) -> list[Alert]:
        if signal.withdrawn:
            return self._withdraw(signal, end)
        standing = self._open.get(key)
        if standing is None:
            if signal.role == "primary" and not may_open:
                return []
            return [] if self._is_echo(key, signal, end) else [self._open_alert(key, signal, end)]
        if signal.role == "explained":
            # The echo of a narrower cell with an alert of its own: it does not keep this one alive, nor ends it at
            # once, for the shares of the excess swing from day to day.
            return []
        return self._update(key, standing, signal, end)

    def _is_echo(self, key: Key, signal: Signal, end: int) -> bool:
        """Whether the cell's evidence belongs to an incident that another cell has reported.

        Its windows end at different times from the other's, so that at the close of an incident the evidence passes
        from cell to cell. What was an echo rings by itself only when its evidence has grown tenfold.
        """
        echo = self._echoes.get(key)
        if echo is not None and end - echo.last > self._config.escalate.hold_days * MS_PER_DAY:
            echo = None
        if signal.role != "primary":
            self._echoes[key] = Echo(end, min(signal.p_value, echo.p_value if echo is not None else 1.0))
            return True
        if echo is None or signal.p_value < echo.p_value * _GROWN:
            self._echoes.pop(key, None)
            return False
        echo.last = end
        return True

    def _open_alert(self, key: Key, signal: Signal, end: int) -> Alert:
        about = [*key[:3], *key[3:][: bool(key[3])], str(signal.tick)]
        digest = hashlib.blake2b("\0".join(about).encode(), digest_size=8).hexdigest()
        scope, level = self._scope(signal)
        alert = self._make(signal, f"{signal.kind}-{digest}", level, scope, end)
        self._open[key] = OpenAlert(alert, end)
        self._crowds = None
        return alert

    def _update(self, key: Key, standing: OpenAlert, signal: Signal, end: int) -> list[Alert]:
        standing.last_signal = end
        if signal.role == "part":
            return []
        scope, level = self._scope(signal)
        current = standing.alert
        if level < current.level:
            standing.calmer_since = None
            return [self._revise(key, standing, "raised", end, signal=signal, level=level, scope=scope)]
        if level == current.level:
            standing.calmer_since = None
            return []
        if standing.calmer_since is None:
            standing.calmer_since, standing.calmer_level = end, level
            return []
        standing.calmer_level = min(standing.calmer_level, level)
        if end - standing.calmer_since < self._config.escalate.lower_after_days * MS_PER_DAY:
            return []
        lower, standing.calmer_since = standing.calmer_level, None
        return [self._revise(key, standing, "lowered", end, signal=signal, level=lower, scope=scope)]

    def _resolve_due(self, end: int) -> list[Alert]:
        out: list[Alert] = []
        for key in sorted(key for key, standing in self._open.items() if self._due(standing) < end):
            days = self._config.escalate.hold_days
            out.append(self._revise(key, self._open[key], "resolved", end, reason=f"no evidence for {days} days"))
        for alert_id in sorted(name for name, standing in self._grave_open.items() if self._due(standing) < end):
            days = self._config.escalate.grave_hold_days
            out.append(self._end_grave(alert_id, end, f"{days} days have passed"))
        return out

    def _withdraw(self, signal: Signal, end: int) -> list[Alert]:
        if signal.alert_id not in self._grave_open:
            return []
        return [self._end_grave(signal.alert_id, end, "the report was corrected or withdrawn")]

    def _end_grave(self, alert_id: str, end: int, reason: str, by: str | None = None) -> Alert:
        standing = self._grave_open.pop(alert_id)
        return self._next(standing.alert, "resolved", end, reason=reason, by=by)

    def _dispose(self, disposition: Disposition, end: int) -> list[Alert]:
        """What a disposition does to its alert; a copy of one, which a sender in doubt sends, does nothing."""
        found = self._standing(disposition.alert_id)
        if found is None or disposition.disposition_id in found[1].disposed:
            return []
        key, standing = found
        reason, by, closes = disposition.reason or disposition.action, disposition.by, disposition.action == "close"
        standing.disposed.append(disposition.disposition_id)
        if key is not None:
            status: Status = "resolved" if closes else "acknowledged"
            return [self._revise(key, standing, status, end, reason=reason, by=by)]
        if closes:
            return [self._end_grave(disposition.alert_id, end, reason, by=by)]
        standing.alert = self._next(standing.alert, "acknowledged", end, reason=reason, by=by)
        return [standing.alert]

    def _standing(self, alert_id: str) -> tuple[Key | None, OpenAlert] | None:
        """The alert of this id that stands, with its key; grave ones have none."""
        if alert_id in self._grave_open:
            return None, self._grave_open[alert_id]
        mine = (key for key in sorted(self._open) if self._open[key].alert.id == alert_id)
        return next(((key, self._open[key]) for key in mine), None)

    def _scope(self, signal: Signal) -> tuple[Scope, Level]:
        """Widen a signal's scope by what else stands: many branches in one region are a regional risk."""
        rules = self._config.escalate
        if signal.source or signal.hazard:
            return signal.scope, signal.level
        others = self._branches_in(signal.region)
        branches = len(others) + (self._branch(signal.product) not in others)
        crowded = branches >= rules.regional_branches and self._is_part(signal.region)
        if crowded and signal.scope == "industry":
            return "systemic", 1
        if crowded:
            return "regional", max(1, signal.level - 1)
        return signal.scope, signal.level

    def _branches_in(self, region: str) -> set[str]:
        """The branches that have an open alert in a region."""
        if self._crowds is None:
            self._crowds = {}
            for _, product, where, about in self._open:
                if product and not about:
                    self._crowds.setdefault(where, set()).add(self._branch(product))
        return self._crowds.get(region, set())

    def _meet(self, regions: Iterable[str]) -> None:
        """Remember the first two learned regions: where there is but one, it is the whole, not a part."""
        new = (region for region in regions if region not in ("", EVERYWHERE, *self._regions))
        self._regions = [*self._regions, *new][:2]

    def _branch(self, product: str) -> str:
        try:
            return self._catalogue.products.path(product)[0]
        except Rejection:  # the overflow leaf is in no catalogue
            return product.partition("/")[0]

    def _is_part(self, region: str) -> bool:
        """Whether a region lies within a wider one."""
        tree = self._catalogue.regions
        if tree.is_open:
            return region != EVERYWHERE and len(self._regions) > 1
        try:
            return len(tree.path(region)) > 1
        except Rejection:
            return True

    # --- revisions -------------------------------------------------------------------------------------------------

    def _revise(
        self,
        key: Key,
        standing: OpenAlert,
        status: Status,
        end: int,
        *,
        signal: Signal | None = None,
        level: Level | None = None,
        scope: Scope | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Alert:
        alert = self._next(standing.alert, status, end, reason=reason, by=by)
        if signal is not None and level is not None and scope is not None:
            fresh = self._make(signal, alert.id, level, scope, end)
            alert = msgspec.structs.replace(
                fresh, revision=alert.revision, status=status, onset=alert.onset, acknowledged_by=alert.acknowledged_by
            )
        if status == "resolved":
            del self._open[key]
            self._crowds = None
        else:
            standing.alert = alert
        return alert

    def _next(
        self, alert: Alert, status: Status, end: int, *, reason: str | None = None, by: str | None = None
    ) -> Alert:
        return msgspec.structs.replace(
            alert,
            revision=alert.revision + 1,
            status=status,
            as_of=self._calendar.moment(end),
            reason=reason,
            acknowledged_by=by or alert.acknowledged_by,
        )

    def _make(self, signal: Signal, alert_id: str, level: Level, scope: Scope, end: int) -> Alert:
        product, region = self._name("product", signal.product), self._name("region", signal.region)
        kind: AlertKind = signal.kind
        onset = end if signal.tick < 0 else self._calendar.tick_start(signal.tick)
        return Alert(
            id=alert_id,
            revision=1,
            status="opened",
            level=level,
            grade=GRADES[level - 1],
            colour=COLOURS[level - 1],
            kind=kind,
            scope=scope,
            product=signal.product,
            product_name=product,
            region=signal.region,
            region_name=region,
            onset=self._calendar.moment(onset),
            as_of=self._calendar.moment(end),
            headline=headline(signal, product, region),
            p_value=None if kind == "grave-event" else float(f"{signal.p_value:.6g}"),
            evidence=signal.evidence,
            contributors=signal.contributors,
            actions=actions(kind, level, self._config.grades, signal.severity),
            source=signal.source,
            hazard=signal.hazard,
            provenance=Provenance(
                config=self._config.digest,
                version=VERSION,
                catalogue=f"{self._catalogue.name}@{self._catalogue.digest[:12]}",
                sources=signal.sources,
                window_days=signal.window_days,
            ),
        )

    def _name(self, field: str, code: str) -> Text:
        if code == EVERYWHERE:
            zh, en = ("全部产品", "all products") if field == "product" else ("全部地区", "all regions")
            return Text(zh=zh, en=en)
        tree = self._catalogue.products if field == "product" else self._catalogue.regions
        zh, en = tree.label(code)
        return Text(zh=zh, en=en)

    # --- state -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state, for one row of the changelog."""
        pending = [(t, cells[c]) for t, cells in sorted(self._pending.items()) for c in sorted(cells)]
        waiting = [(t, named[n]) for t, named in sorted(self._dispositions.items()) for n in sorted(named)]
        echoes = [(key, self._echoes[key]) for key in sorted(self._echoes)]
        standing = [self._open[key] for key in sorted(self._open)]
        standing += [self._grave_open[name] for name in sorted(self._grave_open)]
        state = _State(
            STATE_VERSION, self.through, self._through, standing, self._graves, pending, waiting, echoes, self._regions
        )
        return msgspec.msgpack.encode(state)

    def _localised(self, alert: Alert) -> Alert:
        """The same instants in the deployment's offset: msgpack keeps the instant only."""
        moment, epoch_ms = self._calendar.moment, self._calendar.epoch_ms
        return msgspec.structs.replace(alert, onset=moment(epoch_ms(alert.onset)), as_of=moment(epoch_ms(alert.as_of)))

    def restore(self, data: bytes) -> None:
        """Take up a snapshot."""
        state = unpack(data, _State, STATE_VERSION, "escalate's state")
        self.through, self._through, self._graves = state.through, state.partitions, state.graves
        for standing in state.standing:
            alert = standing.alert = self._localised(standing.alert)
            if alert.kind == "grave-event":
                self._grave_open[alert.id] = standing
            else:
                self._open[_key(alert)] = standing
        self._crowds = None
        self._regions = state.regions
        self._echoes = dict(state.echoes)
        for _, signal in state.pending:
            self.offer(-1, None, [signal])
        for tick, disposition in state.dispositions:
            self._dispositions.setdefault(tick, {})[disposition.disposition_id] = disposition


def _key(one: Signal | Alert) -> Key:
    return one.kind, one.product, one.region, one.source or one.hazard


def _hold_ms(config: Config) -> dict[AlertKind, int]:
    """How long an alert of each kind stands without evidence, in ms."""
    rules = config.escalate
    days: dict[AlertKind, int] = dict.fromkeys(get_args(AlertKind), rules.hold_days)
    days["grave-event"] = rules.grave_hold_days
    # What is judged seldom must be heard of again before it can be said to have gone.
    days["lab-drift"] = max(rules.hold_days, 7 * config.labs.every_weeks)
    days["new-hazard"] = max(rules.hold_days, 7)
    return {kind: one * MS_PER_DAY for kind, one in days.items()}
