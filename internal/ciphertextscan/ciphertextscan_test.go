package ciphertextscan

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// text returns ciphertext of the version with n bytes after the prefix.
func text(version, n int) string {
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(rand.Uint32())
	}
	return fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(payload))
}

func find(t *testing.T, s *corev1.Secret) (found []Text) {
	t.Helper()
	if err := Secret(s, func(x Text) { found = append(found, x) }); err != nil {
		t.Error(err)
	}
	return found
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func release(manifest string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	fmt.Fprintf(w, `{"name":"shop","manifest":%s}`, quote(manifest))
	w.Close()
	return encode(b.String())
}

// forms are the ways in which a value can have ciphertext.
var forms = map[string]func(string) string{
	"raw":     func(s string) string { return s },
	"JSON":    func(s string) string { return `{"data":{"a":` + quote(s) + `}}` },
	"slashes": func(s string) string { return strings.ReplaceAll(s, "/", `\/`) },
	"unicode": func(s string) string {
		return strings.NewReplacer("+", `\u002b`, "=", `\u003D`).Replace(s)
	},
	"escaped twice": func(s string) string { return quote(strings.NewReplacer("/", `\/`, "+", `\u002b`).Replace(s)) },
	"base64":        encode,
	"without padding": func(s string) string {
		return strings.TrimRight(encode(s), "=")
	},
	"base64 twice":    func(s string) string { return encode(encode(s)) },
	"manifest":        func(s string) string { return "kind: Secret\ndata:\n  a: " + encode(s) + "\n  b: eA==\n" },
	"stored manifest": func(s string) string { return encode("kind: Secret\ndata:\n  a: " + encode(s) + "\n") },
	"last-applied": func(s string) string {
		return fmt.Sprintf(`{"apiVersion":"v1","data":{"a":%q,"b":%q},"kind":"Secret"}`, encode(s), encode("x"))
	},
}

// TestForms places texts of all lengths in each form, after and before other bytes.
func TestForms(t *testing.T) {
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			for round := range 300 {
				want := text(1+rand.IntN(2000), 28+rand.IntN(40))
				value := strings.Repeat("-", round%5) + form(want) + "\n" + strings.Repeat(" ", round%3)
				found := find(t, &corev1.Secret{Data: map[string][]byte{"e": []byte(value)}})
				if len(found) != 1 || found[0].Ciphertext != want {
					t.Fatalf("round %d: %q: %+v", round, value, found)
				}
				if name == "base64 twice" || name == "stored manifest" {
					continue
				}
				value = encode(strings.Repeat("x", round%7) + value)
				found = find(t, &corev1.Secret{Data: map[string][]byte{"e": []byte(value)}})
				if len(found) != 1 || found[0].Ciphertext != want {
					t.Fatalf("round %d: %q: %+v", round, value, found)
				}
			}
		})
	}
}

func TestLocations(t *testing.T) {
	raw, annotated, released := text(1, 28), text(22, 30), text(3, 40)
	found := find(t, &corev1.Secret{
		Type: "helm.sh/release.v1",
		Data: map[string][]byte{"a": []byte(raw + " " + raw), "release": []byte(release(forms["manifest"](released)))},
	})
	annotations := map[string]string{"last": forms["last-applied"](annotated)}
	labeled := &corev1.Secret{}
	labeled.Annotations = annotations
	found = append(found, find(t, labeled)...)
	want := []Text{
		{Version: 1, Ciphertext: raw, Name: "a"}, {Version: 3, Ciphertext: released, Name: "release", InRelease: true},
		{Version: 22, Ciphertext: annotated, Annotation: true, Name: "last"},
	}
	if fmt.Sprint(found) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", found, want)
	}
}

func TestNotCiphertext(t *testing.T) {
	for _, value := range []string{
		"", "vault:v", "vault:v1", "vault:v1:", text(1, 27), "vault:v0:" + encode(strings.Repeat("x", 40)),
		"vault:v:" + encode(strings.Repeat("x", 40)), strings.Repeat("vault:v", 100), encode(text(1, 27)),
		"vault:v99999999999999999999:" + encode(strings.Repeat("x", 40)), "vault:v01:" + encode(strings.Repeat("x", 40)),
	} {
		if found := find(t, &corev1.Secret{Data: map[string][]byte{"e": []byte(value)}}); len(found) > 0 {
			t.Errorf("%q: %v", value, found)
		}
	}
}

// TestHostile scans 1 MiB that is made to be slow, and Helm releases that are damaged or too long.
// A search that is quadratic would not end before the tests time out.
func TestHostile(t *testing.T) {
	var all []byte
	for _, n := range needles {
		all = append(all, n.text...)
	}
	inner := bytes.Repeat([]byte("vault:vvault:v1:"), 1000)
	for range maxDepth {
		inner = []byte(strings.Repeat(encode(string(inner)), 2))
	}
	for _, part := range [][]byte{
		all, needles[0].text, []byte("vault:v"), []byte("vault:v1:"), []byte(`\\\\\u002`), inner,
	} {
		value := bytes.Repeat(part, 1<<20/len(part)+1)
		find(t, &corev1.Secret{Data: map[string][]byte{"e": value}})
	}

	old := text(1, 28)
	good := release(old)
	var found []Text
	damaged := good[:len(good)-8]
	long := release(old + strings.Repeat(" ", maxRelease+1))
	for want, value := range map[string]string{"is damaged": damaged, "its end was not searched": long} {
		err := Secret(&corev1.Secret{Type: helmRelease, Data: map[string][]byte{"release": []byte(value)}},
			func(x Text) { found = append(found, x) })
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), old) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if len(found) == 0 {
		t.Error("the beginning was not searched")
	}
}

func FuzzSecret(f *testing.F) {
	for _, form := range forms {
		f.Add([]byte(form(text(1, 28))))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		s := &corev1.Secret{Type: helmRelease, Data: map[string][]byte{"e": value}}
		_ = Secret(s, func(Text) {}) // must not panic
	})
}
