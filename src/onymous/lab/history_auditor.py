"""A second, naive model of history: who did what, and what belongs to whom.

Written apart from the product: it keeps every batch in a list and adds everything up again for
each question.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class Sent:
    """One batch: when it happened, what it was worth, what it said."""

    who: str
    name: str
    at: int
    worth: int = 0
    sessions: int = 0
    #: an attribute and its value; None forgets it
    says: tuple[str, str | None] | None = None
    #: a purpose and the answer; answers of one time count as no
    consents: tuple[str, bool] | None = None
    device: str = ""
    #: what the session is called whose start it brings, if it has a name
    session: str = ""
    #: whether that session was not known before
    begins: bool = False


@dataclasses.dataclass
class Pointer:
    """An alias with its window, or a merge (of all time)."""

    number: int
    source: str
    destination: str
    start: int = 0
    end: int = 0
    undone: bool = False


@dataclasses.dataclass
class Model:
    """Everything that happened, in the order it was accepted."""

    known: set[str] = dataclasses.field(default_factory=set)
    sent: list[Sent] = dataclasses.field(default_factory=list)
    aliases: list[Pointer] = dataclasses.field(default_factory=list)
    merges: list[Pointer] = dataclasses.field(default_factory=list)
    names: set[str] = dataclasses.field(default_factory=set)
    #: (who, name) of every session that has begun: it begins once
    started: set[tuple[str, str]] = dataclasses.field(default_factory=set)

    def send(self, batch: Sent) -> None:
        """Accept a batch; a name that was accepted before changes nothing."""
        if batch.name not in self.names:
            self.names.add(batch.name)
            self.sent.append(batch)
            start = (batch.who, batch.session)
            if batch.session and start not in self.started:
                self.started.add(start)
                batch.begins = True

    def may_alias(self, new: Pointer) -> bool:
        """Say whether an alias takes effect."""
        person = self.stands_for(new.source)
        if person not in (new.source, self.stands_for(new.destination)):
            return False  # somebody else's history
        for old in self.aliases:
            if old.undone:
                continue
            if old.source == new.source and old.start <= new.end and new.start <= old.end:
                return False
            if old.destination == new.source or old.source == new.destination:
                return False
        return new.source not in self.known and new.destination in self.known

    def may_merge(self, new: Pointer) -> bool:
        """Say whether a merge is possible."""
        standing = {m.source: m.destination for m in self.merges if not m.undone}
        if new.source == new.destination or new.source in standing:
            return False
        who = new.destination
        while who in standing:
            who = standing[who]
        return who != new.source

    def may_unmerge(self, merge: Pointer) -> bool:
        """Say whether a merge can be undone: nothing later stands on it."""
        return not merge.undone and not any(
            m.source == merge.destination and m.number > merge.number and not m.undone
            for m in self.merges
        )

    def stands_for(self, who: str) -> str:
        """Name the profile that stands for one after merges."""
        standing = {m.source: m.destination for m in self.merges if not m.undone}
        while who in standing:
            who = standing[who]
        return who

    def group(self, who: str) -> list[str]:
        """Name everybody one profile stands for."""
        everybody = {s.who for s in self.sent} | {m.source for m in self.merges} | {who}
        return sorted(w for w in everybody if self.stands_for(w) == who)

    def batches(self, who: str) -> list[Sent]:
        """List what belongs to a profile: its own, and what aliases give it."""
        out = []
        group = self.group(who)
        for member in group:
            out += [s for s in self.sent if s.who == member]
            for alias in self.aliases:
                if alias.source in group:
                    continue  # they are one person: everything is there already
                if not alias.undone and alias.destination == member:
                    out += [
                        s
                        for s in self.sent
                        if s.who == alias.source and alias.start <= s.at <= alias.end
                    ]
        return out

    def worth(self, who: str) -> int:
        """Add up what a profile is worth."""
        return sum(s.worth for s in self.batches(who))

    def sessions(self, who: str) -> int:
        """Count the sessions of a profile: a session with a name once, however many told of it."""
        names = {s.session for s in self.own(who) if s.session}
        count = sum(s.sessions for s in self.own(who)) + len(names)
        group = self.group(who)
        for alias in self.aliases:
            if alias.undone or alias.destination not in group or alias.source in group:
                continue
            theirs = [s for s in self.sent if s.who == alias.source]
            every = [s.at for s in theirs for _ in range(s.sessions + s.begins)]
            inside = [at for at in every if alias.start <= at <= alias.end]
            # which of them have which name is not kept: those that must be in both are left out
            both = {s.session for s in theirs if s.begins} & names
            count += len(inside) - max(0, len(both) - (len(every) - len(inside)))
        return count

    def own(self, who: str) -> list[Sent]:
        """List what a profile and those merged into it sent; aliases give none of it."""
        group = self.group(who)
        return [s for s in self.sent if s.who in group]

    def attributes(self, who: str) -> dict[str, str]:
        """Say what is known of a profile: the latest of each, unless it was forgotten later."""
        out: dict[str, tuple[int, str | None]] = {}
        for member in self.group(who):
            for s in self.sent:
                if s.who == member and s.says is not None:
                    name, value = s.says
                    if name not in out or s.at >= out[name][0]:
                        out[name] = (s.at, value)
        return {name: value for name, (_, value) in out.items() if value is not None}

    def consent(self, who: str) -> dict[str, bool]:
        """Say which answers are in force: of each purpose the latest; of two at once the no."""
        said: dict[str, list[tuple[int, bool]]] = {}
        for s in self.own(who):
            if s.consents is not None:
                said.setdefault(s.consents[0], []).append((s.at, not s.consents[1]))
        return {purpose: not max(answers)[1] for purpose, answers in said.items()}

    def devices(self, who: str) -> dict[str, tuple[int, int]]:
        """Say when each device was seen first and last."""
        times: dict[str, list[int]] = {}
        for s in self.own(who):
            if s.device:
                times.setdefault(s.device, []).append(s.at)
        return {device: (min(at), max(at)) for device, at in times.items()}

    def first_seen(self, who: str) -> int:
        """Say when a profile was seen first; an alias brings the first time of its source."""
        group = self.group(who)
        sources = [
            a.source
            for a in self.aliases
            if not a.undone and a.destination in group and a.source not in group
        ]
        return min((s.at for s in self.sent if s.who in (*group, *sources)), default=0)
