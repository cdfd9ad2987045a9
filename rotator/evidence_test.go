package rotator

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

const day = 24 * time.Hour

var (
	then  = time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	week  = limits{retireAfter: 7 * day, maxGap: 2 * day}
	later = func(d time.Duration) time.Time { return then.Add(d) }
)

func TestEvidence(t *testing.T) {
	clean := func(points ...point) evidence { return evidence{Listed: then, Clean: points} }
	for name, c := range map[string]struct {
		before evidence
		facts  facts
		want   evidence
	}{
		"the first listing": {facts: facts{complete: true, at: then, target: 3}, want: clean(point{3, then})},
		"a listing a day later": {
			before: clean(point{3, then}), facts: facts{complete: true, at: later(2 * day), target: 4},
			want: evidence{Listed: later(2 * day), Clean: []point{{3, then}, {4, later(2 * day)}}},
		},
		"the same target": {
			before: clean(point{3, then}), facts: facts{complete: true, at: later(day), target: 3},
			want: evidence{Listed: later(day), Clean: []point{{3, then}}},
		},
		"old ciphertext was rewrapped": {
			before: clean(point{2, then}, point{4, then}), facts: facts{lowest: 2, complete: true, at: later(day), target: 4},
			want: evidence{Listed: later(day), Clean: []point{{2, then}}},
		},
		"old ciphertext was rewrapped, and the run was killed": {
			before: clean(point{2, then}, point{4, then}), facts: facts{lowest: 1}, want: evidence{Listed: then},
		},
		"newer ciphertext was rewrapped": {
			before: clean(point{2, then}, point{6, then}), facts: facts{lowest: 4}, want: clean(point{2, then}, point{4, then}),
		},
		"an incomplete listing": {
			before: clean(point{2, then}), facts: facts{target: 4}, want: clean(point{2, then}),
		},
		"retired versions": {
			before: clean(point{2, then}, point{3, then}), facts: facts{complete: true, at: later(day), target: 3, minimum: 2},
			want: evidence{Listed: later(day), Clean: []point{{3, then}}},
		},
		"a long gap": {
			before: clean(point{2, then}), facts: facts{complete: true, at: later(3 * day), target: 3},
			want: evidence{Listed: later(3 * day), LongGaps: 1, Clean: []point{{3, later(3 * day)}}},
		},
		"a short gap after long ones": {
			before: evidence{Listed: then, LongGaps: 5, Clean: []point{{2, then}}},
			facts:  facts{complete: true, at: later(day), target: 2},
			want:   evidence{Listed: later(day), Clean: []point{{2, then}}},
		},
		"a clock that goes back": {
			before: clean(point{2, then}), facts: facts{complete: true, at: later(-day), target: 3},
			want: evidence{Listed: later(-day), Clean: []point{{3, later(-day)}}},
		},
		"a clock that is a little behind": {
			before: clean(point{2, then}), facts: facts{complete: true, at: later(-time.Minute), target: 2},
			want: clean(point{2, then}),
		},
		"a text that stays": {
			before: clean(point{2, then}), facts: facts{complete: true, at: later(day), target: 2, held: 1},
			want: evidence{Listed: later(day), Held: point{1, later(day)}, Clean: []point{{2, then}}},
		},
		"a text that stays, in an incomplete listing": {
			before: clean(point{2, then}), facts: facts{at: later(day), target: 2, held: 1},
			want: evidence{Listed: then, Held: point{1, later(day)}, Clean: []point{{2, then}}},
		},
		"a text that stays, at an unknown time": {
			before: clean(point{2, then}, point{3, later(1)}), facts: facts{target: 3, held: 2},
			want: clean(point{2, then}),
		},
		"a newer text that stays": {
			before: evidence{Listed: then, Held: point{1, then}},
			facts:  facts{complete: true, at: later(day), target: 3, held: 2},
			want:   evidence{Listed: later(day), Held: point{1, later(day)}, Clean: []point{{3, later(day)}}},
		},
		"more entries":  {before: evidence{Entries: 5}, facts: facts{rewrapped: 9}, want: evidence{Entries: 9}},
		"fewer entries": {before: evidence{Entries: 9}, facts: facts{rewrapped: 5}, want: evidence{Entries: 9}},
		"half of the entries": {
			before: evidence{Entries: 9}, facts: facts{scanned: true, verified: 5}, want: evidence{Entries: 5},
		},
		"less than half": {
			before: evidence{Entries: 9}, facts: facts{scanned: true, verified: 4}, want: evidence{Entries: 9},
		},
		"an acknowledged key": {
			before: evidence{Newest: &newestVersion{9, then}, Entries: 9, Listed: then, Clean: []point{{8, then}}},
			facts:  facts{forget: true, newest: &newestVersion{2, then}}, want: evidence{Newest: &newestVersion{2, then}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.before.add(c.facts, week)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(got, got.add(c.facts, week)); diff != "" {
				t.Errorf("adding the facts again (-once +twice):\n%s", diff)
			}
			parsed, err := parseEvidence(got.String())
			if err != nil || parsed.String() != got.String() {
				t.Errorf("%q is parsed as %q: %v", got, parsed, err)
			}
		})
	}
}

// TestEvidenceOfNights compares the evidence of many nights with the complete history: what is
// ready really is, what is ready becomes so in time, and the text stays short.
func TestEvidenceOfNights(t *testing.T) {
	t.Parallel()
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 0))
		l := limits{retireAfter: time.Duration(1+random.IntN(60)) * day, maxGap: 2 * day}
		var e evidence
		cleanSince := map[int]time.Time{} // the complete history
		now, target, minimum := then, 1, 0
		for range 400 {
			gap := 20*time.Hour + time.Duration(random.IntN(8*3600))*time.Second
			if random.IntN(100) == 0 {
				gap = 3 * day
			}
			now = now.Add(gap)
			target += random.IntN(3)
			f := facts{
				complete:  true,
				at:        now,
				target:    target,
				minimum:   minimum,
				newest:    &newestVersion{target + 2, now},
				rewrapped: 100000,
			}
			if random.IntN(50) == 0 {
				f.lowest = max(target-1-random.IntN(9), 1)
			}
			for v := range cleanSince {
				if gap > l.maxGap || f.lowest > 0 && v > f.lowest {
					delete(cleanSince, v)
				}
			}
			for v := 1; v <= target; v++ {
				if _, ok := cleanSince[v]; !ok {
					cleanSince[v] = now
				}
			}
			e = e.add(f, l)
			ready := e.ready(target, now.Add(-l.retireAfter))
			if ready > minimum {
				if since := cleanSince[ready]; now.Sub(since) < l.retireAfter {
					t.Fatalf(
						"seed %d: version %d is ready %s after it was clean, want %s: %s",
						seed,
						ready,
						now.Sub(since),
						l.retireAfter,
						e,
					)
				}
				minimum = ready
			}
			for v := minimum + 1; v <= target; v++ {
				if waited := now.Sub(cleanSince[v]); v > 1 && waited > l.retireAfter+l.retireAfter/(maxPoints-2)+60*time.Hour {
					t.Fatalf("seed %d: version %d is not ready after %s, with %s to wait: %s", seed, v, waited, l.retireAfter, e)
				}
			}
			if text := e.String(); len(text) > 150 {
				t.Fatalf("seed %d: %d bytes: %s", seed, len(text), text)
			}
		}
	}
}

func TestEvidenceLength(t *testing.T) {
	e := evidence{
		Newest:   &newestVersion{9999, then},
		Listed:   then,
		LongGaps: 1000,
		Entries:  999999,
		Held:     point{9999, then},
	}
	for i := range maxPoints {
		e.Clean = append(e.Clean, point{9990 + i, later(time.Duration(i) * day)})
	}
	if text := e.String(); len(text) > 150 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

func TestParseEvidenceFails(t *testing.T) {
	for _, text := range []string{"{}", "n=", "n=0@t6d3ah", "l=!", "e=x", "c=3@t6d3ah,2@t6d3ai",
		"c=2@t6d3ai,3@t6d3ah", "c=" + strings.Repeat("1@a,", 9) + "9@b", "g", "x=1"} {
		if e, err := parseEvidence(text); err == nil {
			t.Errorf("%q is parsed as %+v", text, e)
		}
	}
}

func TestReady(t *testing.T) {
	e := evidence{Clean: []point{{2, then}, {3, later(day)}, {4, later(2 * day)}}}
	for name, c := range map[string]struct {
		target int
		since  time.Time
		want   int
	}{
		"none":                 {4, later(-time.Second), 0},
		"equal time":           {4, then, 2},
		"two":                  {4, later(25 * time.Hour), 3},
		"not above the target": {3, later(99 * day), 3},
		"all":                  {4, later(99 * day), 4},
	} {
		if got := e.ready(c.target, c.since); got != c.want {
			t.Errorf("%s: got %d, want %d", name, got, c.want)
		}
	}
	if since := e.cleanSince(1); !since.Equal(then) {
		t.Errorf("version 1 is clean since %s", since)
	}
	if since := e.cleanSince(5); !since.IsZero() {
		t.Errorf("version 5 is clean since %s", since)
	}
}

func TestStateEntry(t *testing.T) {
	tests := map[string]struct {
		key  ciphertext.Key
		want string
	}{
		"plain":           {ciphertext.Key{Mount: "transit", Name: "app"}, "transit__app"},
		"underscore":      {ciphertext.Key{Mount: "transit", Name: "my_app"}, "transit__my_5fapp"},
		"mount with path": {ciphertext.Key{Mount: "teams/red", Name: "app"}, "teams__red__app"},
		"odd":             {ciphertext.Key{Mount: "t@x", Name: "app"}, "t_40x__app"},
		"like a report":   {ciphertext.Key{Mount: "transit", Name: "app_report"}, "transit__app_5freport"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := stateEntry(test.key); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
	long := stateEntry(ciphertext.Key{Mount: strings.Repeat("m", 300), Name: "app"})
	if len(long) > 253 || !strings.HasPrefix(long, "sha256__") {
		t.Errorf("long name: %s", long)
	}
}

// TestStateIsBounded stores 5,000 keys, each with as much to report as possible.
func TestStateIsBounded(t *testing.T) {
	t.Parallel()
	r := &run{Options: Options{RetireAfter: week.retireAfter, MaxGap: week.maxGap}}
	few, many := map[int]int{1: 10000, 3000: 10000}, map[int]int{}
	for v := range 3000 {
		many[v+1] = 10000
	}
	var problems Problems
	for i := range 20 {
		problems.add(
			Problem{Location{strings.Repeat("n", 63), strings.Repeat("s", 253), fmt.Sprint(i)}, strings.Repeat("r", 1000)},
		)
	}
	var keys []*keyRun
	for i := range 5000 {
		versions := few
		if i%20 == 0 {
			versions = many
		}
		keys = append(keys, &keyRun{KeyReport: &KeyReport{
			Mount: "transit", Name: fmt.Sprintf("team-%04d-application", i), Before: 3000, After: 3000, Target: 2998,
			MinDecryption: 1, Secrets: 100, Oldest: 1, Versions: versions, Unresolved: problems, Reverted: problems,
			Error: strings.Repeat("e", 1000), RotateReason: strings.Repeat("o", 100), Rewrapped: 100, Unsettled: &then,
			Retire: &RetireReport{Reason: strings.Repeat("q", 5000), WouldBreak: problems.Items, Released: problems.Items},
		}, facts: facts{
			newest: &newestVersion{3000, then}, complete: true, at: then, target: 2998, held: 1, rewrapped: 10000,
		},
		})
	}
	for i, keys := range byShard(keys) {
		data := map[string]string{}
		r.addFacts(data, keys)
		if err := addReports(data, keys, then); err != nil {
			t.Fatal(err)
		}
		evidence, reports := 0, 0
		for name, text := range data {
			if strings.HasSuffix(name, reportSuffix) {
				reports++
			} else if evidence++; len(text) > 150 {
				t.Errorf("%d bytes of evidence: %s", len(text), text)
			}
		}
		if size(data) > maxStored || evidence != len(keys) {
			t.Errorf("ConfigMap %d has %d bytes, the evidence of %d of %d keys", i, size(data), evidence, len(keys))
		}
		t.Logf("ConfigMap %d: %d KiB, %d keys, %d reports", i, size(data)>>10, evidence, reports)
	}
	healthy := map[string]string{}
	for _, k := range keys[:1250] {
		k.Unresolved, k.Reverted, k.Error, k.Retire = Problems{}, Problems{}, "", nil
	}
	if err := addReports(healthy, keys[:1250], then); err != nil || len(healthy) != 1250 {
		t.Errorf("%v, %d reports of 1,250 healthy keys", err, len(healthy))
	}
}
