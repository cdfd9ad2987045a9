package rotator_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/transit"
)

// A laggingVault answers half of the reads and rewraps as a standby does that has not received the latest
// changes.
type laggingVault struct {
	*memoryvault.Vault // the active server
	lag                time.Duration

	mu      sync.Mutex
	random  *rand.Rand
	history []past
	stale   int // responses of an old state
}

type past struct {
	until time.Time
	vault *memoryvault.Vault
}

// change makes a change, and keeps the state before it.
func (v *laggingVault) change(do func() error) error {
	before := v.Clone()
	err := do()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.history = append(v.history, past{time.Now(), before})
	return err
}

// server returns the server that answers a request.
func (v *laggingVault) server() *memoryvault.Vault {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.random.IntN(2) == 0 {
		return v.Vault
	}
	at := time.Now().Add(-time.Duration(v.random.Int64N(int64(v.lag))))
	for _, p := range v.history {
		if at.Before(p.until) {
			v.stale++
			return p.vault
		}
	}
	return v.Vault
}

func (v *laggingVault) Key(ctx context.Context, key ciphertext.Key) (transit.KeyInfo, error) {
	return v.server().Key(ctx, key)
}

func (v *laggingVault) Rewrap(ctx context.Context, key ciphertext.Key, items []transit.Item) ([]transit.Result, error) {
	return v.server().Rewrap(ctx, key, items)
}

// Rotate returns what a server answers to the read after it, as for OpenBao.
func (v *laggingVault) Rotate(ctx context.Context, key ciphertext.Key) (info transit.KeyInfo, err error) {
	err = v.change(func() error { _, err := v.Vault.Rotate(ctx, key); return err })
	if err != nil {
		return info, err
	}
	return v.Key(ctx, key)
}

func (v *laggingVault) SetMinDecryptionVersion(ctx context.Context, key ciphertext.Key, info transit.KeyInfo,
	version int) error {
	return v.change(func() error { return v.Vault.SetMinDecryptionVersion(ctx, key, info, version) })
}

// TestLaggingStandby rotates, rewraps and retires again and again with servers that lag behind, in synthetic
// time. No old version is written, no run fails, and none takes the key for a restored one.
func TestLaggingStandby(t *testing.T) {
	parallel(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	few := 100
	if long() {
		few = 1000
	}
	for lag, rounds := range map[time.Duration]int{200 * time.Millisecond: few, 5 * time.Second: 30} {
		t.Run(lag.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				v := &laggingVault{Vault: f.memory, lag: lag, random: rand.New(rand.NewPCG(seed, 0))}
				for _, s := range []string{"a", "b", "c"} {
					f.CreateSecret(f.encrypt(f.Namespace, s, map[string]string{"e": s, "d": s}))
				}
				for round := 1; round <= rounds; round++ {
					report, err := rotator.RunInside(t.Context(), v, f.Kube, f.options(retiring(0), func(o *rotator.Options) {
						o.Rotate = rotator.Always
					}), rotator.Inside{LagFor: 30 * time.Second, KubeClock: time.Now, VaultClock: time.Now})
					if err != nil {
						t.Fatalf("round %d: %v", round, err)
					}
					if k := onlyKey(t, report); k.Target != round+1 || k.Rewrapped != 6 || !k.Retire.Done {
						t.Fatalf("round %d: %+v, retire %+v", round, k, k.Retire)
					}
					for _, s := range []string{"a", "b", "c"} {
						if got := f.plain(f.Namespace, s); got["e"] != s || got["d"] != s ||
							versions(t, f.GetSecret(f.Namespace, s))["e"] != round+1 {
							t.Fatalf("round %d: Secret %s is wrong", round, s)
						}
					}
				}
				if v.stale < rounds/2 {
					t.Errorf("only %d responses were old", v.stale)
				}
			})
		})
	}
}
