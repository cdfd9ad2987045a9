package transit

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// rewrapper is a Rewrapper whose results a test changes. Its ciphertext is plain text with
// a random part.
type rewrapper struct {
	calls  int
	change func(call, item int, r Result) Result
}

func fakeText(version int, plaintext string) []byte {
	return fmt.Appendf(nil, "vault:v%d:%s", version, base64.StdEncoding.EncodeToString(
		fmt.Appendf(nil, "%028d%s", time.Now().UnixNano(), plaintext)))
}

func (f *rewrapper) Rewrap(_ context.Context, _ ciphertext.Key, items []Item) ([]Result, error) {
	f.calls++
	results := make([]Result, len(items))
	for i, it := range items {
		content, err := base64.StdEncoding.DecodeString(string(it.Data[bytes.LastIndexByte(it.Data, ':')+1:]))
		if err != nil || len(content) < 28 {
			results[i].Err = ErrMismatch
			continue
		}
		time.Sleep(time.Nanosecond) // so that the texts differ
		results[i].Data = fakeText(it.KeyVersion, string(content[28:]))
		results[i] = f.change(f.calls, i, results[i])
	}
	return results, nil
}

func TestRewrapVerified(t *testing.T) {
	var (
		garbage = []byte("vault:v2:" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 30)))
		first   = func(f func(Result) Result) func(int, int, Result) Result {
			return func(call, item int, r Result) Result {
				if call == 1 && item == 1 {
					return f(r)
				}
				return r
			}
		}
		always = func(f func(Result) Result) func(int, int, Result) Result {
			return func(_, item int, r Result) Result {
				if item == 0 {
					return f(r)
				}
				return r
			}
		}
	)
	for name, test := range map[string]struct {
		change func(call, item int, r Result) Result
		err    error // of the first item
		calls  int   // 0: more than two
	}{
		"correct":             {change: always(func(r Result) Result { return r }), calls: 2},
		"an old version once": {change: first(func(Result) Result { return Result{Data: fakeText(1, "b")} })},
		"a longer value once": {change: first(func(Result) Result { return Result{Data: fakeText(2, "longer")} })},
		"not ciphertext once": {change: first(func(Result) Result { return Result{Data: []byte("vault:v2:AAAA")} })},
		"old version always": {change: always(func(Result) Result { return Result{Data: fakeText(1, "a")} }),
			err: ErrLagging},
		"longer value always": {change: always(func(Result) Result { return Result{Data: fakeText(2, "ab")} }),
			err: ErrUnverified},
		"does not decrypt": {
			change: func(call, item int, r Result) Result {
				switch {
				case item != 0:
				case call%2 == 1:
					r.Data = fakeText(2, "?")
				default:
					r = Result{Err: ErrMismatch}
				}
				return r
			},
			err: ErrUnverified,
		},
		"does not decrypt once": {change: func(call, _ int, r Result) Result {
			if call == 2 {
				return Result{Err: ErrMismatch}
			}
			return r
		}},
		"another failure": {change: func(call, item int, r Result) Result {
			if call == 1 && item == 0 {
				return Result{Err: ErrTooOld}
			}
			return r
		}, err: ErrTooOld, calls: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &rewrapper{change: test.change}
				items := []Item{{Data: fakeText(1, "a")}, {Data: fakeText(1, "b")}, {Data: garbage[:40]}}
				began := time.Now()
				results, err := RewrapVerified(t.Context(), f, fakeKey, 2, items)
				if err != nil || !errors.Is(results[0].Err, test.err) || (results[0].Err == nil) != (test.err == nil) {
					t.Fatalf("%v, %v", results[0].Err, err)
				}
				if !errors.Is(results[2].Err, ErrMismatch) {
					t.Errorf("garbage: %v", results[2].Err)
				}
				for i, r := range results[:2] {
					if r.Err != nil {
						continue
					}
					if v, err := ciphertext.Version(r.Data); v != 2 || err != nil {
						t.Errorf("item %d has version %d (%v)", i, v, err)
					}
					content, _ := base64.StdEncoding.DecodeString(string(r.Data[len("vault:v2:"):]))
					if want := string("ab"[i]); string(content[28:]) != want {
						t.Errorf("item %d has another value", i)
					}
				}
				if test.calls != 0 && f.calls != test.calls || test.calls == 0 && f.calls <= 2 {
					t.Errorf("%d calls", f.calls)
				}
				if took := time.Since(began); took > verifyFor+5*time.Second {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// The error of a whole request ends the call.
func TestRewrapVerifiedFails(t *testing.T) {
	s := fakeVault(t, -1, respond(403, `{"errors":["permission denied"]}`))
	if _, err := RewrapVerified(t.Context(), s, fakeKey, 2, []Item{{Data: fakeText(1, "a")}}); !errors.Is(err, ErrDenied) {
		t.Errorf("got %v", err)
	}
}
