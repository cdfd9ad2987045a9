package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/secretmanager-io/secretmanager/internal/entrytext"
	"github.com/secretmanager-io/secretmanager/test/cliscript"
	"github.com/secretmanager-io/secretmanager/test/hostile"
	"github.com/secretmanager-io/secretmanager/test/testenv/fixture"
)

// Edge cases, in addition to random values.
func oddValues() [][]byte {
	odd := [][]byte{}
	for _, text := range []string{
		"", "\n", "\n\n", "\r\n", " ", "a\n\nb\n", "\n\na", "a\n\n\n", "a\r\nb\r\n", "\xff\xfe\x00", "a\xc3", "\ufeffa",
		"---\na: b\n...\n", "vault:v1:c2VjcmV0", "c2VjcmV0", "null", "!!binary |\n  //4=\n", "# comment\n", "\x00",
	} {
		odd = append(odd, []byte(text))
	}
	return odd
}

// A pod reads after a rotation exactly what was encrypted or edited: 1,000 values, half of them written
// by encrypt and half by edit.
func TestRoundTrip(t *testing.T) {
	u := newUser(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))

	binary := make([]byte, 700<<10)
	for i := range binary {
		binary[i] = byte(r.UintN(256))
	}
	text := slices.Grow([]byte{}, 700<<10)
	for len(text) < 700<<10 {
		text = append(text, "a line\r\n\n  b: c \t\n"...)
	}
	values := append(oddValues(), oddValues()...) // for encrypt and for edit
	for i := len(values) + 4; i < 1000; i++ {
		values = append(values, hostile.Value(r, []int{3, 20, 300, 10_000}[i%4]))
	}
	r.Shuffle(len(values), func(i, j int) { values[i], values[j] = values[j], values[i] })

	var secrets []map[string][]byte
	for chunk := range slices.Chunk(values, 50) {
		entries := map[string][]byte{}
		for i, value := range chunk {
			entries[fmt.Sprintf("e%02d", i)] = value
		}
		secrets = append(secrets, entries)
	}
	// The largest possible value, written in each way.
	for _, long := range [][]byte{binary, text[:700<<10]} {
		secrets = append(secrets, map[string][]byte{"e00": long, "e01": []byte("short")},
			map[string][]byte{"e00": []byte("short"), "e01": long})
	}

	u.must("", "vault-setup", "--transit-key", u.Namespace, "--service-account", "app", "--auth-mount", "jwt",
		"--rotator-role", u.Namespace+"-rotator", "--apply")
	dir := t.TempDir()
	class := file(t,
		fmt.Sprintf(
			`{"apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass", "metadata": {"name": "all"},
 "spec": {"provider": "secretmanager", "parameters": {"roleName": "%[1]s_app", "transitKey": "%[1]s"}}}`, u.Namespace))
	token := file(t, fixture.Issuer().Token(u.Namespace, "app", "vault", time.Hour))
	cliscript.LinkPrograms(t, dir)
	socket, stop, err := cliscript.ServeProvider(u.API.Kubeconfig, u.Vault.Address,
		filepath.Join(dir, "secretmanager-provider"),
		filepath.Join(dir, "provider.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()

	n := 0
	for i, entries := range secrets {
		name := fmt.Sprint("s", i)
		n += len(entries)
		args, encrypted := []string{"encrypt", name, "--transit-key", u.Namespace}, map[string][]byte{}
		for j, entry := range slices.Sorted(maps.Keys(entries)) {
			if j%2 == 0 && len(entries[entry]) > 0 { // encrypt rejects empty values
				encrypted[entry] = entries[entry]
				args = append(args, "--from-file", entry+"="+file(t, string(entries[entry])))
			}
		}
		u.must("", args...)
		before := u.secret(name).Data

		// The editor saves the text with all of them.
		whole := asTyped(entries)
		given := filepath.Join(dir, "given")
		u.env["KUBE_EDITOR"] = fmt.Sprintf("f() { cp \"$1\" %s; cp %s \"$1\"; }; f", given, file(t, whole))
		u.must("", "edit", name)
		shown, err := os.ReadFile(given)
		if err != nil {
			t.Fatal(err)
		}
		formatted, err := entrytext.Format(encrypted)
		if err != nil || !strings.HasSuffix(string(shown), "\n\n"+formatted.Text) {
			t.Fatalf("the editor was given %q, and not %q: %v", shown, formatted.Text, err)
		}
		got, problems := formatted.Parse(string(shown))
		if problems != nil {
			t.Fatalf("the editor was given what cannot be read: %v", problems)
		}
		same(t, name+" in the editor", encrypted, got)
		edited := u.secret(name).Data
		for entry, was := range before {
			if !bytes.Equal(edited[entry], was) {
				t.Errorf("edit changed the ciphertext of %s/%s", name, entry)
			}
		}
	}
	if n < 1000 {
		t.Errorf("only %d values", n)
	}

	u.must("", "rotate", "--transit-key", u.Namespace, "--state-namespace", u.Namespace, "--rotate=always")
	for i, entries := range secrets {
		name := fmt.Sprint("s", i)
		data := u.secret(name)
		for entry, value := range data.Data {
			if !bytes.HasPrefix(value, []byte("vault:v2:")) {
				t.Errorf("%s/%s was not rewrapped", name, entry)
			}
		}
		manifest, out := filepath.Join(dir, name+".json"), filepath.Join(dir, name)
		data.APIVersion, data.Kind = "v1", "Secret"
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(manifest, text, 0o600); err != nil {
			t.Fatal(err)
		}
		u.must("", "mount", "--class", class, "--secret", manifest, "--socket", socket, "--service-account-token",
			token, "--out", out, "--volume-attribute", "secretName="+name)
		got := map[string][]byte{}
		for entry := range entries {
			content, err := os.ReadFile(filepath.Join(out, entry))
			if err != nil {
				t.Fatal(err)
			}
			got[entry] = content
		}
		same(t, name+" in the pod", entries, got)
	}
}

// same compares entries, and reports the first difference of long ones.
func same(t *testing.T, what string, want, got map[string][]byte) {
	t.Helper()
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("%s: entries, -want +got:\n%s", what, diff)
	}
	for entry, value := range want {
		if other := got[entry]; !bytes.Equal(value, other) {
			at := 0
			for at < min(len(value), len(other)) && value[at] == other[at] {
				at++
			}
			t.Errorf("%s: %s of %d bytes came back with %d, other from byte %d on: %q became %q", what, entry,
				len(value), len(other), at,
				value[at:min(at+20, len(value))], other[at:min(at+20, len(other))])
		}
	}
}

// asTyped returns entries as YAML, each as a user may type it whatever it was before.
func asTyped(entries map[string][]byte) string {
	var b strings.Builder
	for name, value := range entries {
		fmt.Fprintf(&b, "%q: ", name)
		if !utf8.Valid(value) {
			fmt.Fprintf(&b, "!!binary %s\n", base64.StdEncoding.EncodeToString(value))
			continue
		}
		b.WriteByte('"')
		for _, r := range string(value) {
			if r > ' ' && r < 0x7f && r != '"' && r != '\\' {
				b.WriteRune(r)
			} else {
				fmt.Fprintf(&b, `\U%08x`, r)
			}
		}
		b.WriteString("\"\n")
	}
	return b.String()
}
