package rotator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/transit"
)

// maxPoints bounds the number of points of a key in the state.
const maxPoints = 8

// point says that no text with a version below Version was written or rewrapped since Since.
type point struct {
	Version int
	Since   time.Time
}

// evidence is what the state has of a key: what neither ciphertext nor Vault can tell. Its
// zero value knows nothing. All times are those of Vault, in whole seconds.
type evidence struct {
	// Newest is the newest version that a run has seen; nil if none has.
	Newest *newestVersion
	// Listed is when all Secrets of the key were last listed.
	Listed time.Time
	// LongGaps counts the gaps in a row that were longer than the maximum.
	LongGaps int
	// Entries counts the entries that decrypted when that was last verified.
	Entries int
	// Held is the lowest version of a text that decrypted and that the rotator did not
	// rewrap, and when one was last seen; zero if none was.
	Held point
	// Clean has points with increasing versions and times. Where one is missing, the next
	// one counts, which is later.
	Clean []point
}

// facts are what a run finds out about a key.
type facts struct {
	newest *newestVersion
	lowest int // lowest version that the run rewrapped; 0: none
	held   int // lowest version that decrypts and stays; 0: none
	// at is the time of the last listing; zero if it is not known.
	at time.Time
	// complete says that the listing had all Secrets of the key, and that everything below the
	// target is verified.
	complete bool
	target   int
	minimum  int // min_decryption_version

	rewrapped int // entries that the run rewrapped, and which so decrypted
	verified  int // entries that decrypted when a scan tried all of them
	scanned   bool

	forget bool // the key was restored or created again, which the operator acknowledged
}

// limits are those of time.
type limits struct{ retireAfter, maxGap time.Duration }

// maxClockDifference is the largest difference between two clocks that are right.
const maxClockDifference = 5 * time.Minute

// add returns the evidence with the facts of a run. Adding the facts of a run again as it goes
// on changes nothing else.
func (e evidence) add(f facts, l limits) evidence {
	if f.forget {
		e = evidence{}
	}
	if f.newest != nil {
		e.Newest = f.newest
	}
	if f.lowest > 0 {
		e.Clean = e.cleanUpTo(f.lowest)
	}
	switch {
	case f.held == 0:
	case f.at.IsZero():
		e.Clean = e.cleanUpTo(f.held)
	default:
		e.Held = e.hold(point{f.held, f.at}, l)
	}
	if f.complete && !f.at.IsZero() {
		e = e.observe(f, l)
	}
	e.Entries = max(e.Entries, f.rewrapped)
	if f.scanned && !e.entriesMissing(f.verified) {
		e.Entries = f.verified
	}
	return e
}

// cleanUpTo returns the points that a text with the version does not contradict. That nothing is
// below a higher version becomes that nothing is below this one.
func (e evidence) cleanUpTo(version int) (points []point) {
	for _, p := range e.Clean {
		if p.Version > version {
			p.Version = version
		}
		if n := len(points); p.Version > 1 && (n == 0 || points[n-1].Version < p.Version) {
			points = append(points, p)
		}
	}
	return points
}

// hold adds a text that stays. Of several versions, the lowest counts.
func (e evidence) hold(p point, l limits) point {
	if e.Held.Version > 0 && e.Held.Version < p.Version && p.Since.Sub(e.Held.Since) < l.retireAfter {
		p.Version = e.Held.Version
	}
	return p
}

// observe adds a complete listing.
func (e evidence) observe(f facts, l limits) evidence {
	gap := f.at.Sub(e.Listed)
	switch {
	case e.Listed.IsZero():
		e.Clean = nil
	case gap > l.maxGap:
		e.Clean, e.LongGaps = nil, e.LongGaps+1
	case gap < -maxClockDifference:
		e.Clean = nil // the clock was wrong then, or is now
	case gap > time.Minute: // otherwise this is the listing that has been added already
		e.LongGaps = 0
	}
	if e.Listed.Before(f.at) || gap < -maxClockDifference {
		e.Listed = f.at
	}
	e.Clean = slices.DeleteFunc(e.cleanUpTo(f.target), func(p point) bool { return p.Version <= f.minimum })
	e.Clean = merge(e.Clean, point{f.target, f.at}, l.retireAfter)
	if f.target <= max(f.minimum, 1) { // there is nothing to retire
		e.Clean = nil
	}
	return e
}

// merge appends a point, and keeps at most maxPoints. Points that are close to each other in
// comparison with the waiting time are one, with the version of the earlier one: a version that
// is missing is retired a little later. So each point still becomes old enough, however often a
// key is rotated.
func merge(points []point, p point, retireAfter time.Duration) []point {
	if len(points) > 0 {
		last := points[len(points)-1]
		if p.Version <= last.Version || p.Since.Sub(last.Since) < retireAfter/(maxPoints-2) {
			return points
		}
	}
	points = append(points, p)
	// Of the points that are old enough, only the last one matters.
	for len(points) > 1 && p.Since.Sub(points[1].Since) >= retireAfter {
		points = points[1:]
	}
	if len(points) <= maxPoints {
		return points
	}
	// The waiting time was longer before: remove the point that costs the least time.
	remove := len(points) - 2
	for i := remove; i >= 0; i-- {
		if points[i+1].Since.Sub(points[i].Since) < points[remove+1].Since.Sub(points[remove].Since) {
			remove = i
		}
	}
	return slices.Delete(points, remove, remove+1)
}

// ready returns the highest version up to the target below which nothing was seen since a
// time. It returns 0 if no version is ready.
func (e evidence) ready(target int, since time.Time) (version int) {
	for _, p := range e.Clean {
		if !p.Since.After(since) {
			version = min(p.Version, target)
		}
	}
	return version
}

// cleanSince returns since when nothing below a version was seen, or the zero time.
func (e evidence) cleanSince(version int) time.Time {
	for _, p := range e.Clean {
		if p.Version >= version {
			return p.Since
		}
	}
	return time.Time{}
}

// entriesMissing reports whether fewer entries decrypt than half of those that did before.
func (e evidence) entriesMissing(entries int) bool { return entries == 0 || 2*entries < e.Entries }

// newestVersion identifies the newest version of a key. A key that was restored from a backup,
// or deleted and created again, has lost it, or has another one of the same number.
type newestVersion struct {
	Version int
	Created time.Time
}

// newestOf returns the newest version, or nil if Vault did not return its creation time.
func newestOf(info transit.KeyInfo) *newestVersion {
	created, ok := info.Created[info.Latest]
	if !ok {
		return nil
	}
	return &newestVersion{info.Latest, created.UTC()}
}

// String returns the evidence as the state stores it: at most 150 bytes, because a cluster may
// have thousands of keys. Versions are decimal, times are Unix times in base 36:
//
//	n=3000@t6d3ah l=t6d3ah g=1 e=120 h=7@t6d3ah c=8@t6d3ah,9@t6f0c1
//
// These are Newest, Listed, LongGaps, Entries, Held and Clean. Fields that are not known are
// left out.
func (e evidence) String() string {
	var fields []string
	add := func(name, format string, values ...any) {
		fields = append(fields, name+"="+fmt.Sprintf(format, values...))
	}
	if e.Newest != nil {
		add("n", "%s", point{e.Newest.Version, e.Newest.Created})
	}
	if !e.Listed.IsZero() {
		add("l", "%s", formatTime(e.Listed))
	}
	if e.LongGaps > 0 {
		add("g", "%d", min(e.LongGaps, 99))
	}
	if e.Entries > 0 {
		add("e", "%d", e.Entries)
	}
	if e.Held.Version > 0 {
		add("h", "%s", e.Held)
	}
	if len(e.Clean) > 0 {
		texts := make([]string, len(e.Clean))
		for i, p := range e.Clean {
			texts[i] = p.String()
		}
		add("c", "%s", strings.Join(texts, ","))
	}
	return strings.Join(fields, " ")
}

// String returns VERSION@TIME.
func (p point) String() string { return fmt.Sprintf("%d@%s", p.Version, formatTime(p.Since)) }

func formatTime(t time.Time) string { return strconv.FormatInt(t.Unix(), 36) }

// parseEvidence parses the result of [evidence.String].
func parseEvidence(text string) (e evidence, err error) {
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "n":
			var p point
			p, err = parsePoint(value)
			e.Newest = &newestVersion{p.Version, p.Since}
		case "l":
			e.Listed, err = parseTime(value)
		case "g":
			e.LongGaps, err = strconv.Atoi(value)
		case "e":
			e.Entries, err = strconv.Atoi(value)
		case "h":
			e.Held, err = parsePoint(value)
		case "c":
			for one := range strings.SplitSeq(value, ",") {
				var p point
				if p, err = parsePoint(one); err != nil {
					break
				}
				e.Clean = append(e.Clean, p)
			}
		default:
			err = fmt.Errorf("unknown field %q", name)
		}
		if err != nil {
			return evidence{}, fmt.Errorf("it is not evidence of a key: %w", err)
		}
	}
	if !e.ordered() {
		return evidence{}, fmt.Errorf("it is not evidence of a key: the points are not in order")
	}
	return e, nil
}

// ordered reports whether both versions and times of the points increase.
func (e evidence) ordered() bool {
	for i := 1; i < len(e.Clean); i++ {
		if a, b := e.Clean[i-1], e.Clean[i]; a.Version >= b.Version || a.Since.After(b.Since) {
			return false
		}
	}
	return len(e.Clean) <= maxPoints
}

func parsePoint(text string) (p point, err error) {
	version, since, _ := strings.Cut(text, "@")
	if p.Version, err = strconv.Atoi(version); err != nil || p.Version < 1 {
		return p, fmt.Errorf("invalid version %q", version)
	}
	p.Since, err = parseTime(since)
	return p, err
}

func parseTime(text string) (time.Time, error) {
	seconds, err := strconv.ParseInt(text, 36, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid time %q", text)
	}
	return time.Unix(seconds, 0).UTC(), nil
}
