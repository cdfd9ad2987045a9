package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/failure"
	"github.com/secretmanager-io/secretmanager/internal/quota"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestVersion(t *testing.T) {
	s := serve(t, "http://127.0.0.1:1")
	resp, err := s.Version(t.Context(), &v1alpha1.VersionRequest{Version: "v1alpha1"})
	if err != nil {
		t.Fatal(err)
	}
	got := []string{resp.Version, resp.RuntimeName, resp.RuntimeVersion}
	if diff := cmp.Diff([]string{"v1alpha1", "secretmanager-provider", "v1.2.3"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestMountFromKubelet(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address)
	const doc = `{"database": {"password": "pa55", "port": 5432.10, "hosts": ["a", "b"]}, "blob": "aGVsbG8="}`
	entries := map[string]string{
		"secrets.json": e.encrypt(t, ciphertext.Strict, "matrix", "secrets.json", doc),
		"api-token":    e.encrypt(t, ciphertext.Strict, "matrix", "api-token", "t0ken\n"),
		"empty":        e.encrypt(t, ciphertext.Strict, "matrix", "empty", ""),
	}

	t.Run("every entry", func(t *testing.T) {
		resp, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]file{"secrets.json": {0o644, doc}, "api-token": {0o644, "t0ken\n"}, "empty": {0o644, ""}}
		if diff := cmp.Diff(want, filesOf(resp)); diff != "" {
			t.Error(diff)
		}
		for path := range want {
			if len(versionsOf(resp)[path]) != 64 {
				t.Errorf("file %s has version %q", path, versionsOf(resp)[path])
			}
		}
	})

	t.Run("objects", func(t *testing.T) {
		objects := `
- {objectName: db/password, secretKey: secrets.json, field: database.password, filePermission: "0440"}
- {objectName: db/port, secretKey: secrets.json, field: database.port, filePermission: 0400}
- {objectName: db/hosts, secretKey: secrets.json, field: database.hosts}
- {objectName: db/second, secretKey: secrets.json, field: database.hosts.1}
- {objectName: blob, secretKey: secrets.json, field: blob, encoding: base64, filePermission: "0"}
- {objectName: api-token, encoding: utf-8}
`
		resp, err := s.Mount(t.Context(), mountRequest(e.params("objects", objects), entries))
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]file{
			"db/password": {0o440, "pa55"}, "db/port": {0o400, "5432.10"}, "db/hosts": {0o644, `["a","b"]`},
			"db/second": {0o644, "b"}, "blob": {0, "hello"}, "api-token": {0o644, "t0ken\n"},
		}
		if diff := cmp.Diff(want, filesOf(resp)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestScopes verifies that each scope decrypts where it is valid (other locations are among
// the failures), and that scope none is for a key that is not derived.
func TestScopes(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address)
	plain := ciphertext.Key{Mount: "transit", Name: e.key.Name + "-plain"}
	e.Write(plain.String(), nil)
	e.Write("sys/policies/acl/"+e.policy,
		map[string]any{"policy": `path "transit/decrypt/` + e.key.Name + `*" { capabilities = ["update"] }`})
	for _, test := range []struct {
		name, scope, made string
		params            []string
	}{
		{"strict", "strict", e.encrypt(t, ciphertext.Strict, "matrix", "x", "v"), nil},
		{"strict by default", "", e.encrypt(t, ciphertext.Strict, "matrix", "x", "v"), nil},
		{"namespace", "namespace", e.encrypt(t, ciphertext.Namespace, "elsewhere", "y", "v"), nil},
		{"cluster", "cluster", e.Encrypt(e.key, ciphertext.Cluster.Context("any", "any", "any"), "v"), nil},
		{"none", "none", e.Encrypt(plain, nil, "v"), []string{"transitKey", plain.Name}},
	} {
		t.Run(test.name, func(t *testing.T) {
			params := e.params(append(test.params, "scope", test.scope)...)
			resp, err := s.Mount(t.Context(), mountRequest(params, map[string]string{"x": test.made}))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]file{"x": {0o644, "v"}}, filesOf(resp)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestVersionsOfFiles verifies that a rewrap changes no version, and a new value only that of its file.
func TestVersionsOfFiles(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address)
	mount := func(entries map[string]string) *v1alpha1.MountResponse {
		t.Helper()
		resp, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	entries := map[string]string{"a": e.encrypt(t, ciphertext.Strict, "matrix", "a", "one"),
		"b": e.encrypt(t, ciphertext.Strict, "matrix", "b", "one")}
	first := mount(entries)

	e.Write(e.key.String()+"/rotate", nil)
	rewrapped := map[string]string{"a": e.encrypt(t, ciphertext.Strict, "matrix", "a", "one"),
		"b": e.encrypt(t, ciphertext.Strict, "matrix", "b", "one")}
	if !strings.HasPrefix(rewrapped["a"], "vault:v2:") {
		t.Fatal("the key was not rotated")
	}
	if diff := cmp.Diff(versionsOf(first), versionsOf(mount(rewrapped))); diff != "" {
		t.Errorf("a rewrap changes versions:\n%s", diff)
	}
	if diff := cmp.Diff(versionsOf(first), versionsOf(mount(entries))); diff != "" {
		t.Errorf("the old ciphertext has different versions:\n%s", diff)
	}

	entries["a"] = e.encrypt(t, ciphertext.Strict, "matrix", "a", "two")
	changed := versionsOf(mount(entries))
	if changed["a"] == versionsOf(first)["a"] || changed["b"] != versionsOf(first)["b"] {
		t.Errorf("versions %v became %v", versionsOf(first), changed)
	}
	if changed["a"] == changed["b"] || versionsOf(first)["a"] == versionsOf(first)["b"] {
		t.Error("versions reveal that two files are the same")
	}
}

// TestOneLoginOneBatch counts the requests of a mount to Vault, whatever its number of files.
func TestOneLoginOneBatch(t *testing.T) {
	e := newEnv(t)
	var logins, decrypts, items, others atomic.Int32
	s := serve(t, e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		switch {
		case isLogin(r):
			logins.Add(1)
		case isDecrypt(r):
			decrypts.Add(1)
			body, _ := io.ReadAll(r.Body)
			items.Add(int32(bytes.Count(body, []byte(`"ciphertext"`))))
			r.Body = io.NopCloser(bytes.NewReader(body))
		default:
			others.Add(1)
		}
		return false
	}))
	entries := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		entries[name] = e.encrypt(t, ciphertext.Strict, "matrix", name, `{"f": "`+name+`"}`)
	}
	objects := "- {objectName: a1, secretKey: a, field: f}\n- {objectName: a2, secretKey: a}\n- {objectName: d}\n- " +
		"{objectName: b, field: f}"
	resp, err := s.Mount(t.Context(), mountRequest(e.params("objects", objects), entries))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]file{"a1": {0o644, "a"}, "a2": {0o644, `{"f": "a"}`}, "d": {0o644, `{"f": "d"}`}, "b": {0o644, "b"}}
	if diff := cmp.Diff(want, filesOf(resp)); diff != "" {
		t.Error(diff)
	}
	if logins.Load() != 1 || decrypts.Load() != 1 || items.Load() != 3 || others.Load() != 0 {
		t.Errorf("%d logins, %d decrypts of %d items, %d others", logins.Load(), decrypts.Load(), items.Load(), others.Load())
	}
}

// TestMountsTogether verifies that concurrent pods of different namespaces get their own files.
func TestMountsTogether(t *testing.T) {
	v := testenv.SharedVault(t)
	s := serve(t, v.Address)
	var wait sync.WaitGroup
	for range 4 {
		e := newEnvIn(t, v)
		entries := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x", e.namespace)}
		for range 8 {
			wait.Go(func() {
				resp, err := s.Mount(t.Context(), mountRequest(e.params(), entries))
				if err != nil {
					t.Error(err)
					return
				}
				if diff := cmp.Diff(map[string]file{"x": {0o644, e.namespace}}, filesOf(resp)); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
	wait.Wait()
}

// TestLongRequestsTakeTurns verifies that mounts that need much memory are not all in memory at
// the same time, and do not delay those of another namespace.
func TestLongRequestsTakeTurns(t *testing.T) {
	e, neighbor := newEnv(t), newEnv(t)
	var at, most atomic.Int32
	free := make(chan struct{})
	address := e.faulty(func(_ http.ResponseWriter, r *http.Request) bool {
		if isDecrypt(r) && r.ContentLength > 64<<10 {
			now := at.Add(1)
			for {
				before := most.Load()
				if now <= before || most.CompareAndSwap(before, now) {
					break
				}
			}
			defer at.Add(-1)
			select {
			case <-free:
			case <-r.Context().Done():
			}
		}
		return false
	})
	s := serve(t, address, within(time.Minute))
	value := strings.Repeat("v", 700<<10)
	long := e.entries(t, value)
	in := mountRequest(e.params(), long)
	// As many mounts as can wait and run together.
	works, requests := s.provider.works.State(), s.provider.requests.State()
	pods := int((requests.Capacity/2/int64(4*len(in.Secrets)) +
		requests.MaxWaiting/2/int64(len(in.Secrets)+len(in.Attributes)+200)))
	room := works.Capacity / 2 / int64(7*len(long["x"]))
	if pods < 2*int(room) {
		t.Fatalf("%d pods need no turns", pods)
	}
	done := make(chan error, pods)
	for range pods {
		go func() {
			resp, err := s.Mount(t.Context(), in)
			if err == nil && filesOf(resp)["x"].Content != value {
				err = errors.New("another value")
			}
			done <- err
		}()
	}
	// until the mounts that fit are running and others wait
	for at.Load() == 0 || s.provider.requests.State().Waiters == 0 {
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	s.mountOne(t, neighbor.params(), neighbor.entries(t, "short"), "short")
	close(free)
	for range pods {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got := int64(most.Load()); got > room {
		t.Errorf("%d at a time, want %d", got, room)
	}
	for _, state := range []quota.State{s.provider.works.State(), s.provider.requests.State()} {
		if state.Free != state.Capacity || state.Waiting != 0 {
			t.Errorf("not all bytes are released: %+v", state)
		}
	}
}

// TestNoRoom verifies that a mount fails if it waits for memory until its timeout, with the
// names in the message, and fails immediately if the queue is full.
func TestNoRoom(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.Vault.Address, within(time.Second))
	long := e.entries(t, strings.Repeat("v", 700<<10))
	for name, a := range map[string]*quota.Pool{"requests": s.provider.requests, "works": s.provider.works} {
		var all []*quota.Grant
		capacity := a.State().Capacity
		for n := capacity/64 + 1; a.State().Free-capacity/8 >= n; { // except the part for small mounts
			g, err := a.Acquire(t.Context(), fmt.Sprint("other-", len(all)), n, 0)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, g)
		}
		_, err := s.Mount(t.Context(), mountRequest(e.params(), long))
		wantError(t, err, failure.MountTimeout, "SecretProviderClass "+e.namespace+"/matrix", "within 1s",
			"waiting for other mounts")
		if name == "requests" {
			s.provider.requests = fullPool(t)
			_, err = s.Mount(t.Context(), mountRequest(e.params(), long))
			s.provider.requests = a
			wantError(t, err, failure.NodeBusy, "SecretProviderClass "+e.namespace+"/matrix", "too many large mounts",
				"tries again")
		}
		s.mountOne(t, e.params(), e.entries(t, "short"), "short")
		for _, g := range all {
			g.Release()
		}
	}
	s.mountOne(t, e.params(), long, strings.Repeat("v", 700<<10))
}
