package transit_test

import (
	"cmp"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestTargetVersion(t *testing.T) {
	now := time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)
	created := func(ages ...time.Duration) map[int]time.Time { // ages of the versions from 1 on
		m := map[int]time.Time{}
		for i, age := range ages {
			m[i+1] = now.Add(-age)
		}
		return m
	}
	const day = 24 * time.Hour
	nightly := created(3*day, 2*day, day, 0)
	for name, c := range map[string]struct {
		info      transit.KeyInfo
		settle    time.Duration
		want      int
		unsettled time.Time
	}{
		"nightly run":    {transit.KeyInfo{Latest: 4, Created: nightly}, transit.DefaultSettle, 2, time.Time{}},
		"no settle time": {transit.KeyInfo{Latest: 4, Created: nightly}, 0, 4, time.Time{}},
		"new key":        {transit.KeyInfo{Latest: 1, Created: created(0)}, day, 1, now.Add(day + time.Second)},
		"several on day one": {transit.KeyInfo{Latest: 3, Created: created(3, 2, 1)}, day, 1,
			now.Add(day + time.Second - 3)},
		"rounded to seconds": {transit.KeyInfo{Latest: 2, Created: created(2*day, day+time.Second)}, day, 1, time.Time{}},
		"just settled": {transit.KeyInfo{Latest: 2, Created: created(2*day, day+time.Second+1)}, day,
			2, time.Time{}},
		"clock went back": {transit.KeyInfo{Latest: 2, Created: created(-day, -2*day)}, day,
			1, now.Add(2*day + time.Second)},
		"no creation times":     {transit.KeyInfo{Latest: 7}, day, 7, time.Time{}},
		"not in creation order": {transit.KeyInfo{Latest: 3, Created: created(day, 3*day, 0)}, 2 * day, 2, time.Time{}},
		"listed beyond the newest": {
			transit.KeyInfo{Latest: 1, Created: created(3*day, 3*day)}, day, 1, time.Time{},
		},
		"min_encryption_version": {
			transit.KeyInfo{Latest: 4, MinEncryptionVersion: 3, Created: nightly}, transit.DefaultSettle, 3,
			now.Add(20*time.Hour + time.Second),
		},
		"min_decryption_version": {
			transit.KeyInfo{Latest: 4, MinDecryptionVersion: 4, Created: map[int]time.Time{4: now}}, day, 4,
			now.Add(day + time.Second),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := transit.TargetVersion(c.info, c.settle, now)
			if got.Version != c.want || !got.Unsettled.Equal(c.unsettled) {
				t.Errorf("got %d, unsettled until %v; want %d, %v", got.Version, got.Unsettled, c.want, c.unsettled)
			}
		})
	}
}

// TestKeyVersions requests versions of a key from a real server: to encrypt and rewrap
// with, up and down.
func TestKeyVersions(t *testing.T) {
	v := testenv.SharedVault(t)
	c, s := client(t, v)
	k := newKey(t, v, true)
	context := []byte("c")
	var info transit.KeyInfo
	for range 2 {
		var err error
		if info, err = s.Rotate(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	if since := time.Since(info.ReadAt); since < -time.Minute || since > time.Minute {
		t.Errorf("the key was read at %v", info.ReadAt)
	}
	text := func(results []transit.Result, err error) []byte {
		t.Helper()
		if err := cmp.Or(err, results[0].Err); err != nil {
			t.Fatal(err)
		}
		return results[0].Data
	}
	checkVersion := func(data []byte, want int) {
		t.Helper()
		if got, err := ciphertext.Version(data); got != want || err != nil {
			t.Errorf("version %d (%v), want %d", got, err, want)
		}
	}
	encrypted := text(s.Encrypt(t.Context(), k, []transit.Item{{Data: []byte("x"), Context: context, KeyVersion: 2}}))
	checkVersion(encrypted, 2)
	for _, version := range []int{3, 1, 2} {
		encrypted = text(transit.RewrapVerified(t.Context(), s, k, version,
			[]transit.Item{{Data: encrypted, Context: context}}))
		checkVersion(encrypted, version)
	}
	if got := text(s.Decrypt(t.Context(), k, []transit.Item{{Data: encrypted, Context: context}})); string(got) != "x" {
		t.Errorf("decrypts to %q", got)
	}
	errs, err := transit.Decryptable(t.Context(), s, k, []transit.Item{
		{Data: encrypted, Context: context}, {Data: encrypted, Context: []byte("elsewhere")},
	})
	if err != nil || errs[0] != nil || !errors.Is(errs[1], transit.ErrMismatch) {
		t.Errorf("decryptable: %v (%v)", errs, err)
	}
	names, err := s.ListKeys(t.Context(), k.Mount)
	if err != nil || !slices.Contains(names, k.Name) {
		t.Errorf("listed %v (%v)", names, err)
	}
	if _, err := s.ListKeys(t.Context(), "nowhere"); !errors.Is(err, transit.ErrNotFound) {
		t.Errorf("a mount that does not exist: %v", err)
	}
	if c.InMemory(t.Context()) { // it has files
		t.Error("the server is reported to keep its data in memory")
	}
}
