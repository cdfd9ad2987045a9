package rotator

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

func TestObserveOldest(t *testing.T) {
	then := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	now := then.Add(24 * time.Hour)
	tests := map[string]struct {
		times   versionTimes
		min     int // MinDecryption
		target  int
		oldest  int
		partial bool
		want    versionTimes
	}{
		"all at the target":     {min: 1, target: 3, oldest: 3, want: versionTimes{2: now, 3: now}},
		"one version below":     {min: 1, target: 3, oldest: 2, want: versionTimes{2: now}},
		"oldest version in use": {min: 1, target: 3, oldest: 1, want: versionTimes{}},
		"known times are kept": {times: versionTimes{2: then}, min: 1, target: 3, oldest: 3,
			want: versionTimes{2: then, 3: now}},
		"an old entry is back": {times: versionTimes{2: then, 3: then}, min: 1, target: 3, oldest: 2,
			want: versionTimes{2: then}},
		"a partial inventory adds nothing": {times: versionTimes{2: then}, min: 1, target: 3, oldest: 3, partial: true,
			want: versionTimes{2: then}},
		"a partial inventory removes": {times: versionTimes{2: then, 3: then}, min: 1, target: 3, oldest: 2,
			partial: true, want: versionTimes{2: then}},
		"retired versions are removed": {times: versionTimes{2: then, 3: then, 4: then}, min: 3, target: 5, oldest: 5,
			want: versionTimes{4: then, 5: now}},
		"a key restored from a backup": {times: versionTimes{2: then, 9: then}, min: 1, target: 3, oldest: 3,
			want: versionTimes{2: then, 3: now}},
		"an entry of a lost version": {min: 1, target: 2, oldest: 7, want: versionTimes{2: now}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.times == nil {
				test.times = versionTimes{}
			}
			test.times.observeOldest(&KeyReport{MinDecryption: test.min, Target: test.target}, test.oldest, !test.partial, now)
			if diff := cmp.Diff(test.want, test.times); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	g := versionTimes{}
	g.observeOldest(&KeyReport{MinDecryption: 1, Target: 5000}, 5000, true, now)
	if len(g) != maxStoredVersions {
		t.Errorf("%d versions, want %d", len(g), maxStoredVersions)
	}
}

func TestReady(t *testing.T) {
	then := time.Date(2026, 1, 1, 3, 0, 0, 0, time.UTC)
	g := versionTimes{2: then, 3: then.Add(24 * time.Hour), 4: then.Add(48 * time.Hour)}
	tests := map[string]struct {
		target int
		before time.Time
		want   int
	}{
		"none":                 {4, then.Add(-time.Second), 0},
		"equal time":           {4, then, 2},
		"two":                  {4, then.Add(25 * time.Hour), 3},
		"not above the target": {3, then.Add(99 * time.Hour), 3},
		"all":                  {4, then.Add(99 * time.Hour), 4},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := g.ready(test.target, test.before); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
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
