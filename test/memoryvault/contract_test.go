package memoryvault_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/rotator"
	"github.com/secretmanager-io/secretmanager/test/memoryvault"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
	"github.com/secretmanager-io/secretmanager/transit"
)

func TestMain(m *testing.M) { testenv.Main(m) }

type vault interface {
	secretmanager.Vault
	rotator.Vault
}

// TestContract checks that the Vault in memory behaves as a real one and as OpenBao.
func TestContract(t *testing.T) { testContract(t, "vault") }

// TestOpenBaoContract is TestContract with OpenBao.
func TestOpenBaoContract(t *testing.T) { testContract(t, "openbao") }

func testContract(t *testing.T, name string) {
	f := fixture.NewTransit(t)
	plain := f.Key + "-plain"
	f.CreateKey(plain, false)
	memory := memoryvault.New(f.Key)
	memory.CreateKey(memoryvault.Key(plain), false)
	for name, v := range map[string]vault{name: f.Root, "memory": memory} {
		t.Run(name, func(t *testing.T) {
			key, underived := memoryvault.Key(f.Key), memoryvault.Key(plain)
			checkCiphertext(t, v, key)
			checkVersions(t, v, key)
			results, err := v.Encrypt(t.Context(), underived, []transit.Item{{Data: []byte("1")}})
			if err != nil || results[0].Err != nil {
				t.Fatal(results, err)
			}
			results, err = v.Decrypt(t.Context(), underived, []transit.Item{{Data: results[0].Data, Context: []byte("any")}})
			if err != nil || string(results[0].Data) != "1" {
				t.Errorf("a key that is not derived: %+v, %v", results, err)
			}
			names, err := v.ListKeys(t.Context(), "transit")
			if err != nil || !slices.Contains(names, f.Key) || !slices.IsSorted(names) {
				t.Errorf("keys %q, %v", names, err)
			}
		})
	}
}

// checkCiphertext encrypts, rewraps and decrypts, with errors.
func checkCiphertext(t *testing.T, v vault, key ciphertext.Key) {
	info, err := v.Key(t.Context(), key)
	if err != nil || !info.Derived || info.Latest != 1 || info.MinDecryptionVersion != 1 || info.ReadAt.IsZero() ||
		info.Created[1].IsZero() {
		t.Errorf("%+v, %v", info, err)
	}
	items := []transit.Item{{Data: []byte("1"), Context: []byte("a")}, {Data: nil, Context: []byte("b")}}
	encrypted, err := v.Encrypt(t.Context(), key, items)
	if err != nil || len(encrypted) != 2 {
		t.Fatal(encrypted, err)
	}
	rewrapped, err := v.Rewrap(t.Context(), key, []transit.Item{
		{Data: encrypted[0].Data, Context: []byte("a")}, {Data: encrypted[1].Data, Context: []byte("elsewhere")},
	})
	if err != nil || rewrapped[0].Err != nil || !errors.Is(rewrapped[1].Err, transit.ErrMismatch) {
		t.Errorf("%+v, %v", rewrapped, err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 3*time.Second) // a client waits for a version that is too new
	defer cancel()
	decrypted, err := v.Decrypt(soon, key, []transit.Item{
		{Data: rewrapped[0].Data, Context: []byte("a")}, {Data: encrypted[1].Data, Context: []byte("b")},
		{Data: []byte("vault:v7:" + string(encrypted[0].Data[9:])), Context: []byte("a")},
	})
	if err != nil || string(decrypted[0].Data) != "1" || len(decrypted[1].Data) != 0 || decrypted[1].Err != nil ||
		!errors.Is(decrypted[2].Err, transit.ErrTooNew) {
		t.Errorf("%+v, %v", decrypted, err)
	}
	missing := ciphertext.Key{Mount: "transit", Name: key.Name + "-missing"}
	_, err = v.Key(t.Context(), missing)
	_, err2 := v.Decrypt(t.Context(), missing, items[:1])
	if !errors.Is(err, transit.ErrNotFound) || !errors.Is(err2, transit.ErrNotFound) {
		t.Errorf("a key that does not exist: %v, %v", err, err2)
	}
	_, err = v.Rewrap(t.Context(), key, []transit.Item{{Data: encrypted[0].Data, Context: []byte("a")},
		{Data: encrypted[0].Data}})
	if err == nil {
		t.Error("items with and without a context are accepted together")
	}
}

// checkVersions rotates the key, rewraps to a version, and retires.
func checkVersions(t *testing.T, v vault, key ciphertext.Key) {
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	item := transit.Item{Data: []byte("1"), Context: []byte("a")}
	old, err := v.Encrypt(t.Context(), key, []transit.Item{item})
	must(old, err)
	must(v.Rotate(t.Context(), key))
	must(v.Rotate(t.Context(), key))
	item.Data = old[0].Data
	var got []string
	for version := range 4 {
		item.KeyVersion = version
		results, err := v.Rewrap(context.Background(), key, []transit.Item{item})
		must(results, err)
		n, err := ciphertext.Version(results[0].Data)
		got = append(got, fmt.Sprint(n, err, results[0].Err))
	}
	item.KeyVersion = 4
	if results, err := v.Rewrap(t.Context(), key, []transit.Item{item}); err != nil ||
		!errors.Is(results[0].Err, transit.ErrTooNew) {
		t.Errorf("rewrapped to a version that does not exist: %v, %v", results, err)
	}
	if diff := cmp.Diff([]string{"3 <nil> <nil>", "1 <nil> <nil>", "2 <nil> <nil>", "3 <nil> <nil>"}, got); diff != "" {
		t.Errorf("rewrapped to versions (-want +got):\n%s", diff)
	}
	info, err := v.Key(t.Context(), key)
	must(info, err)
	must(nil, v.SetMinDecryptionVersion(t.Context(), key, info, 2))
	item.KeyVersion = 0
	results, err := v.Rewrap(t.Context(), key, []transit.Item{item})
	must(results, err)
	info, err = v.Key(t.Context(), key)
	must(info, err)
	if !errors.Is(results[0].Err, transit.ErrTooOld) || info.Latest != 3 || info.MinDecryptionVersion != 2 ||
		len(info.Created) != 2 {
		t.Errorf("retired: %v, %+v", results[0].Err, info)
	}
	if err := v.SetMinDecryptionVersion(t.Context(), key, info, 4); err == nil {
		t.Error("a version that does not exist became the oldest")
	}
}
