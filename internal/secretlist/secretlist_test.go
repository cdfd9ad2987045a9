package secretlist_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/secretlist"
	"github.com/secretmanager-io/secretmanager/test/memorykube"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A list of several pages is visited to its end, even if the continue token expires in
// between, as it does after some minutes.
func TestEach(t *testing.T) {
	server := testenv.SharedAPIServer(t)
	direct, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	ns := "secretlist"
	server.CreateNamespace(t, ns)
	const n = 5*50 + 5 // a first page, one that is four times as long, and five Secrets
	for i := range n {
		_, err := direct.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("s", i), Labels: map[string]string{ciphertext.LabelTransitKey: "k"}},
			Data:       map[string][]byte{"a": []byte("x")},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	pages, forget := 0, false
	config := rest.CopyConfig(server.Config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			pages++
			token := r.URL.Query().Get("continue")
			if token == "" || !forget {
				return next.RoundTrip(r)
			}
			forget = false
			return &http.Response{
				StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}},
				Body: io.NopCloser(bytes.NewReader(expired(t, token))),
			}, nil
		})
	})
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	list := func(kube kubernetes.Interface, selector string, visit func(*corev1.Secret) error) error {
		for _, s := range secretlist.Ciphertext(selector) {
			if err := (secretlist.Lister{Kube: kube}).Each(t.Context(), ns, s, visit); err != nil {
				return err
			}
		}
		return nil
	}
	for _, forget = range []bool{false, true} {
		seen := map[string]int{}
		forgets := forget
		pages = 0
		err := list(kube, "", func(s *corev1.Secret) error { seen[s.Name]++; return nil })
		if err != nil || len(seen) != n || seen["s0"] != 1 {
			t.Errorf("token expires %t: %d of %d (%v)", forgets, len(seen), n, err)
		}
		if want := map[bool]int{false: 4, true: 5}[forgets]; pages != want {
			t.Errorf("token expires %t: %d requests, not %d", forgets, pages, want)
		}
	}
	// An error of visit ends the list and is returned unchanged.
	stop, calls := errors.New("stop"), 0
	if err := list(kube, "", func(*corev1.Secret) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%d calls (%v)", calls, err)
	}
	var failed *secretlist.Error
	if err := list(kube, "a b", func(*corev1.Secret) error { return nil }); !errors.As(err, &failed) ||
		failed.Namespace != ns {
		t.Errorf("a denied list: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (secretlist.Lister{Kube: kube}).Each(ended, ns, secretlist.ByLabel(), nil); !errors.Is(err,
		context.Canceled) {
		t.Errorf("a canceled list: %v", err)
	}
}

// Secrets of half a MiB after small ones do not fit into the page that would be next. It is cut off, and no
// Secret is missing.
func TestHeavySecrets(t *testing.T) {
	server := memorykube.New()
	kube := server.Client(nil)
	for i := range 69 {
		value := []byte("x")
		if i >= 60 {
			value = bytes.Repeat(value, 500<<10)
		}
		_, err := kube.CoreV1().Secrets("ns").Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%02d", i)}, Data: map[string][]byte{"e": value},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	var longest, aborted int
	kube = server.Client(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(r *http.Request) (*http.Response, error) {
			response, err := next.RoundTrip(r)
			if err == nil {
				response.Body = &measured{response.Body, func(n int, complete bool) {
					if longest = max(longest, n); !complete {
						aborted++
					}
				}, 0}
			}
			return response, err
		})
	})
	seen := map[string]bool{}
	err := secretlist.Lister{Kube: kube}.Each(t.Context(), "ns", secretlist.Selection{}, func(s *corev1.Secret) error {
		seen[s.Name] = len(s.Data["e"]) > 0
		return nil
	})
	if err != nil || len(seen) != 69 {
		t.Errorf("%d Secrets, %v", len(seen), err)
	}
	if aborted == 0 || longest > secretlist.MaxPageBytes+64<<10 {
		t.Errorf("%d pages were cut off, and %d bytes of a page were read", aborted, longest)
	}
}

// measured calls closed with the number of bytes that were read, and whether that is all.
type measured struct {
	io.ReadCloser
	closed func(n int, complete bool)
	n      int
}

func (m *measured) Read(p []byte) (int, error) {
	n, err := m.ReadCloser.Read(p)
	m.n += n
	return n, err
}

func (m *measured) Close() error {
	rest, err := m.ReadCloser.Read(make([]byte, 1))
	m.closed(m.n, rest == 0 && err != nil)
	return m.ReadCloser.Close()
}

// expired returns the API server's response to an expired token. It has a token that
// continues at the same key with the current data.
func expired(t *testing.T, token string) []byte {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	var place map[string]any
	if err := json.Unmarshal(raw, &place); err != nil {
		t.Fatal(err)
	}
	place["rv"] = -1
	if raw, err = json.Marshal(place); err != nil {
		t.Fatal(err)
	}
	status, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure,
		Reason: metav1.StatusReasonExpired, Code: http.StatusGone,
		ListMeta: metav1.ListMeta{Continue: base64.RawURLEncoding.EncodeToString(raw)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return status
}
