package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/test/relay"
)

// observed puts a proxy before Vault that counts requests by the operation in their path, and may
// respond to one itself.
func (u *user) observed(answer func(op string, body []byte) []byte) func() map[string]int {
	u.t.Helper()
	proxy, err := relay.New(u.Vault.Address, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	var mu sync.Mutex
	count := map[string]int{}
	proxy.ModifyResponse = func(r *http.Response) error {
		op := strings.Split(r.Request.URL.Path, "/")[3]
		mu.Lock()
		count[op]++
		mu.Unlock()
		if answer == nil {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		body = answer(op, body)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(body))), int64(len(body))
		r.Header.Del("Content-Length")
		return nil
	}
	server := httptest.NewServer(proxy)
	u.t.Cleanup(server.Close)
	u.env["VAULT_ADDR"] = server.URL
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		got := count
		count = map[string]int{}
		return got
	}
}

// All entries are encrypted in one request, wherever they are written.
func TestEncryptUsesOneRequest(t *testing.T) {
	u := newUser(t)
	asked := u.observed(nil)
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "entry-%d=value %d\n", i, i)
		}
		return file(t, b.String())
	}
	manifest := filepath.Join(t.TempDir(), "m.yaml")
	if _, err := u.Kube.CoreV1().Secrets(u.Namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "plain"}, StringData: map[string]string{"a": "1", "b": "2", "c": "3"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		args    []string
		rewraps int // rewraps that verify the stored entries: a hundred entries each
	}{
		{"one", []string{"one", "--transit-key", u.Namespace, "--from-literal", "a=b"}, 1},
		{"a thousand", []string{"many", "--transit-key", u.Namespace, "--from-env-file", lines(1000)}, 10},
		{"over what is there", []string{"many", "--from-env-file", lines(300)}, 10},
		{"a manifest", []string{"many", "--transit-key", u.Namespace, "--from-env-file", lines(250), "--dry-run=client"}, 3},
		{"a new file", []string{"many", "--transit-key", u.Namespace, "--from-env-file", lines(250), "--merge-into",
			manifest}, 3},
		{"merged into it", []string{"many", "--from-env-file", lines(120), "--merge-into", manifest}, 2},
		{"beside", []string{"sealed", "--transit-key", u.Namespace, "--from-secret", "plain"}, 1},
		{"in place, proved before and after", []string{"plain", "--transit-key", u.Namespace, "--from-secret", "plain",
			"--replace"}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			u.must("", append([]string{"encrypt"}, test.args...)...)
			if diff := cmp.Diff(map[string]int{"keys": 1, "encrypt": 1, "rewrap": test.rewraps}, asked()); diff != "" {
				t.Errorf("requests to Vault (-want +got):\n%s", diff)
			}
		})
	}
}

// If one entry fails, nothing is written: Vault reports errors of items with status 200.
func TestEncryptAllOrNothing(t *testing.T) {
	u := newUser(t)
	manifest := filepath.Join(t.TempDir(), "m.yaml")
	u.must("", "encrypt", "there", "--transit-key", u.Namespace, "--from-literal", "a=1")
	u.must("", "encrypt", "there", "--transit-key", u.Namespace, "--from-literal", "a=1", "--merge-into", manifest)
	if _, err := u.Kube.CoreV1().Secrets(u.Namespace).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "plain"}, StringData: map[string]string{"a": "hunter2", "b": "2"},
	}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	was, plain := u.secret("there"), u.secret("plain")
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	u.observed(func(op string, body []byte) []byte {
		if op != "encrypt" {
			return body
		}
		i, j := strings.LastIndex(string(body), `{"ciphertext"`), strings.LastIndex(string(body), "}]")
		return []byte(string(body[:i]) + `{"error":"no more entropy"` + string(body[j:]))
	})
	for _, args := range [][]string{
		{"new", "--transit-key", u.Namespace, "--from-literal", "a=1", "--from-literal", "b=2"},
		{"there", "--from-literal", "a=2", "--from-literal", "b=2"},
		{"there", "--from-literal", "a=2", "--from-literal", "b=2", "--merge-into", manifest},
		{"other", "--transit-key", u.Namespace, "--from-literal", "a=2", "--from-literal", "b=2", "--merge-into", manifest},
		{"other", "--transit-key", u.Namespace, "--from-literal", "a=2", "--from-literal", "b=2", "--merge-into",
			manifest + ".new"},
		{"other", "--transit-key", u.Namespace, "--from-secret", "plain"},
		{"plain", "--transit-key", u.Namespace, "--from-secret", "plain", "--replace"},
	} {
		code, stdout, stderr := u.run("", append([]string{"encrypt"}, args...)...)
		if code != cli.ExitFailed || stdout != "" || !strings.Contains(stderr, `entry "b": no more entropy`) ||
			strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
	if diff := cmp.Diff(was, u.secret("there")); diff != "" {
		t.Errorf("the Secret changed:\n%s", diff)
	}
	if diff := cmp.Diff(plain, u.secret("plain")); diff != "" {
		t.Errorf("the Secret of plaintext changed:\n%s", diff)
	}
	if secrets, err := u.Kube.CoreV1().Secrets(u.Namespace).List(t.Context(), metav1.ListOptions{}); err != nil ||
		len(secrets.Items) != 2 {
		t.Errorf("there are %d Secrets (%v)", len(secrets.Items), err)
	}
	if now, err := os.ReadFile(manifest); err != nil || string(now) != string(text) {
		t.Errorf("the manifest changed (%v)", err)
	}
	if files, _ := os.ReadDir(filepath.Dir(manifest)); len(files) != 1 {
		t.Errorf("files: %v", files)
	}
}
