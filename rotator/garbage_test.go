package rotator_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/secretmanager-io/secretmanager/rotator"
)

// TestGarbageIsNotWritten has a Vault that returns garbage, old versions and foreign ciphertext
// for some items of each rewrap. Nothing of that is stored.
func TestGarbageIsNotWritten(t *testing.T) {
	secrets, oneOf := 150, 8
	if long() {
		secrets, oneOf = 10_000, 100
	}
	f := newServerFixture(t)
	for i := range secrets {
		f.CreateSecret(f.encrypt(f.Namespace, fmt.Sprintf("s%d", i), map[string]string{"e": fmt.Sprintf("value %05d", i)}))
	}
	f.RotateKey()
	var mu sync.Mutex
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random, changed := rand.New(rand.NewPCG(seed, 1)), 0
	change := func(old, result string, foreign string) string {
		mu.Lock()
		defer mu.Unlock()
		if random.IntN(oneOf) > 0 {
			return result
		}
		changed++
		content, _ := base64.StdEncoding.DecodeString(result[strings.LastIndexByte(result, ':')+1:])
		switch random.IntN(5) {
		case 0:
			return old
		case 1:
			return strings.Replace(result, ":v2:", ":v1:", 1)
		case 2:
			content[random.IntN(len(content))]++
			return "vault:v2:" + base64.StdEncoding.EncodeToString(content)
		case 3:
			return "vault:v2:" + base64.StdEncoding.EncodeToString(append(content, 0))
		}
		return foreign
	}
	vault := f.Session(f.VaultProxy(func(w http.ResponseWriter, r *http.Request, vault http.Handler) {
		if !strings.Contains(r.URL.Path, "/rewrap/") {
			vault.ServeHTTP(w, r)
			return
		}
		var body bytes.Buffer
		body.ReadFrom(r.Body)
		var in struct {
			Items []struct{ Ciphertext string } `json:"batch_input"`
		}
		if err := json.Unmarshal(body.Bytes(), &in); err != nil {
			t.Error(err)
		}
		r.Body, r.ContentLength = http.NoBody, 0
		again := r.Clone(r.Context())
		again.Body, again.ContentLength = readCloser{&body}, int64(body.Len())
		record := httptest.NewRecorder()
		vault.ServeHTTP(record, again)
		var out struct {
			Data struct {
				Results []map[string]any `json:"batch_results"`
			} `json:"data"`
		}
		if err := json.Unmarshal(record.Body.Bytes(), &out); err != nil {
			t.Error(err)
		}
		for i, result := range out.Data.Results {
			foreign, _ := out.Data.Results[(i+1)%len(out.Data.Results)]["ciphertext"].(string)
			if text, ok := result["ciphertext"].(string); ok {
				result["ciphertext"] = change(in.Items[i].Ciphertext, text, foreign)
			}
		}
		w.WriteHeader(record.Code)
		_ = json.NewEncoder(w).Encode(out)
	}), f.token(f.rotatorPaths()...))
	report, err := rotator.Run(t.Context(), vault, f.Kube, f.options())
	k := onlyKey(t, report)
	if err != nil || k.Rewrapped != secrets {
		t.Errorf("%v: %d of %d entries were rewrapped", err, k.Rewrapped, secrets)
	}
	if changed == 0 {
		t.Error("no result was changed")
	}
	for i := range secrets {
		name := fmt.Sprintf("s%d", i)
		if got, want := f.plain(f.Namespace, name)["e"], fmt.Sprintf("value %05d", i); got != want {
			t.Errorf("%s has another value", name)
		}
	}
	t.Logf("%d results were changed", changed)
}

// readCloser is a body that is read once.
type readCloser struct{ *bytes.Buffer }

func (readCloser) Close() error { return nil }
