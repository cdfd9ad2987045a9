package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// atLimit returns a text of n bytes with the given beginning and end.
func atLimit(n int, begin, middle, end string) string {
	return begin + strings.Repeat(middle, n-len(begin)-len(end)) + end
}

// TestLimits tests each limit of a class, at the limit and just above it.
func TestLimits(t *testing.T) {
	tokensOf := func(n int) string {
		all := map[string]token{}
		for i := range n {
			all[fmt.Sprint(i)] = token{canaryToken, time.Time{}}
		}
		return tokensJSON(all)
	}
	with := func(name string, value func(n int) string) func(int) *v1alpha1.MountRequest {
		return func(n int) *v1alpha1.MountRequest { return mountRequest(plainParams(name, value(n)), nil) }
	}
	for _, test := range []struct {
		name    string
		limit   int
		request func(n int) *v1alpha1.MountRequest
		text    string
	}{
		{"attributes", maxAttributes, func(n int) *v1alpha1.MountRequest {
			in := mountRequest(plainParams(), nil)
			in.Attributes += strings.Repeat(" ", n-len(in.Attributes))
			return in
		}, "attributes: has 1048577 bytes, more than the limit of 1 MiB"},
		{"parameters", maxParameters, func(n int) *v1alpha1.MountRequest {
			all := plainParams()
			for i := len(all); i < n; i++ {
				all[fmt.Sprint(class.KubeletPrefix, i)] = ""
			}
			return mountRequest(all, nil)
		}, "attributes have more than the limit of 200 members"},
		{"tokens in bytes", maxTokenBytes,
			with(class.AttributeTokens, func(n int) string { return atLimit(n, `{"a":{"token":"`, "t", `"}}`) }),
			"serviceAccount.tokens: has 262145 bytes, more than the limit of 256 KiB"},
		{"tokens", maxTokens, with(class.AttributeTokens, tokensOf), "more than the limit of 100 tokens"},
		{"entries", maxEntries, func(n int) *v1alpha1.MountRequest {
			all := map[string]string{}
			for i := range n {
				all[fmt.Sprint(i)] = ""
			}
			return mountRequest(plainParams(), all)
		}, "secrets have more than the limit of 10000 members"},
		{"the target path", class.MaxPath, func(n int) *v1alpha1.MountRequest {
			in := mountRequest(plainParams(), nil)
			in.TargetPath = strings.Repeat("t", n)
			return in
		}, "the target path: has 4096 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := plainProvider(t)
			if _, failed := p.parse(test.request(test.limit)); failed != nil {
				t.Errorf("at the limit: %v", failed)
			}
			_, failed := p.parse(test.request(test.limit + 1))
			if failed == nil {
				t.Fatal("above the limit: no failure")
			}
			if failed.Reason.Code() != codes.InvalidArgument {
				t.Errorf("reason %s", failed.Reason)
			}
			wantError(t, failure.Final(failed), failed.Reason, test.text)
		})
	}
}

// TestRefusedBeforeParsing verifies that input above a limit is rejected before it is parsed.
func TestRefusedBeforeParsing(t *testing.T) {
	p := plainProvider(t)
	unknown := map[string]string{}
	for i := range 50_000 {
		unknown[fmt.Sprint(i)] = ""
	}
	inputs := map[string]*v1alpha1.MountRequest{
		"parameters": mountRequest(unknown, nil),
		"entries":    mountRequest(plainParams(), unknown),
		"tokens":     mountRequest(plainParams(class.AttributeTokens, `{"a":{}`+strings.Repeat(`,"a":{}`, 30_000)+`}`), nil),
	}
	for name, text := range map[string]string{
		"mappings": "- {" + strings.Repeat("a: ,", 120_000) + "}", "anchors": "[" + strings.Repeat("&a ,", 120_000) + "]",
		"lists": "[" + strings.Repeat("[],", 170_000) + "]", "items": strings.Repeat("-\n", 250_000),
		"comments":   strings.Repeat("#\n- a\n", 80_000),
		"directives": strings.Repeat("%TAG !a! x\n", 40_000) + "--- a", "keys": strings.Repeat("? a\n", 100_000),
	} {
		inputs[name] = mountRequest(plainParams("objects", text), nil)
	}
	for name, in := range inputs {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, failed := p.parse(in)
		runtime.ReadMemStats(&after)
		if failed == nil || failed.Reason.Code() != codes.InvalidArgument {
			t.Errorf("%s: %v", name, failed)
		}
		if n, size := after.TotalAlloc-before.TotalAlloc, uint64(len(in.Attributes)+len(in.Secrets)); n > 4*size {
			t.Errorf("%s: allocated %d KiB for %d KiB", name, n>>10, size>>10)
		}
	}
}

// TestProblemsAreBounded verifies that for an input with thousands of problems, only the first are
// reported and the rest is not checked.
func TestProblemsAreBounded(t *testing.T) {
	if found := stringMapProblems("secrets", "{"+strings.Repeat(`"a":1,`, 10)+`"b":2}`); len(found) != 2 {
		t.Errorf("problems %q", found)
	}

	// Each file fails, and each needs the whole document.
	p, r := plainProvider(t), &request{pod: pod{namespace: "demo"}, Class: class.Class{Secret: "matrix"}}
	var objects []class.Object
	for i := range class.MaxObjects {
		objects = append(objects, class.Object{Path: fmt.Sprint(i), Entry: "x", Field: []string{fmt.Sprint(i)},
			Encoding: class.Hex})
	}
	fields := map[string]any{}
	for i := range class.MaxObjects {
		fields[fmt.Sprint(i)] = "not hex"
	}
	_, failed := p.buildResponse(t.Context(), r, objects, map[string][]byte{"x": []byte(toJSON(fields))})
	if failed == nil || strings.Count(failed.Cause, "not hex digits") != failure.MaxProblems {
		t.Errorf("got %v", failed)
	}
}

// TestWorkIsBounded verifies that a document is not parsed once for each object.
func TestWorkIsBounded(t *testing.T) {
	p, r := plainProvider(t), &request{pod: pod{namespace: "demo"}, Class: class.Class{Secret: "matrix"}}
	text := []byte("# YAML\na: [" + strings.Repeat("1,", 20_000) + "1]\nb: '" + strings.Repeat(" ", 700<<10) + "'")
	objects := func(n int, field string, e class.Encoding) (all []class.Object) {
		for i := range n {
			all = append(all, class.Object{Path: fmt.Sprint(i), Entry: "x", Field: []string{field}, Encoding: e})
		}
		return all
	}
	// Objects with the same field share one result.
	budget := document.NewBudget(t.Context(), document.MaxWork)
	s := &source{plaintext: text, budget: budget, contents: map[string]content{}}
	for _, o := range objects(100, "a", class.UTF8) {
		if _, err := s.content(o); err != nil {
			t.Fatal(err)
		}
	}
	if used := document.MaxWork - budget.Left(); used > 30_000 {
		t.Errorf("%d values were read for one field", used)
	}
	// An empty result holds no memory.
	if content, err := decode(class.Base64, []byte("aG"+strings.Repeat("\n", 700<<10)+"k=")); err != nil ||
		cap(content) > 64 {
		t.Errorf("%d bytes are held, %v", cap(content), err)
	}
	if _, failed := p.buildResponse(t.Context(), r, objects(class.MaxObjects, "b", class.Base64),
		map[string][]byte{"x": text}); failed != nil {
		t.Error(failed)
	}
	// Different fields, each with nearly the whole document.
	nested := `"x"`
	var deep []class.Object
	var field []string
	for i := range document.MaxDepth - 2 {
		nested = fmt.Sprintf("{f: %s}", nested)
		field = append(field[:len(field):len(field)], "f")
		deep = append(deep, class.Object{Path: fmt.Sprint(i), Entry: "x", Field: field})
	}
	budget = document.NewBudget(t.Context(), 1000)
	s = &source{plaintext: []byte(nested), budget: budget, contents: map[string]content{}}
	var err error
	for _, o := range deep {
		if _, err = s.content(o); err != nil {
			break
		}
	}
	if !errors.Is(err, document.ErrBudget) {
		t.Errorf("got %v", err)
	}
}

// TestSecretEntriesAreBounded tests the limit of entries in a Secret that is read as the pod.
func TestSecretEntriesAreBounded(t *testing.T) {
	for n, want := range map[int]*failure.Reason{maxEntries: nil, maxEntries + 1: failure.SecretTooLarge} {
		data := map[string]string{}
		for i := range n {
			data[fmt.Sprint(i)] = ""
		}
		text, err := json.Marshal(map[string]any{"kind": "Secret", "apiVersion": "v1", "data": data})
		if err != nil {
			t.Fatal(err)
		}
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(text) }))
		t.Cleanup(api.Close)
		p := plainProvider(t)
		if p.config.SecretReader, err = NewSecretReader(&rest.Config{Host: api.URL}); err != nil {
			t.Fatal(err)
		}
		r := &request{pod: pod{"demo", "app-0", "uid-0", "app"}, Class: class.Class{Secret: "matrix"},
			tokens: tokens{"": {canaryToken, time.Time{}}}}
		var g memoryGrants
		got, _, failed := p.readEntries(t.Context(), r, &g)
		if want == nil {
			if failed != nil || len(got) != n {
				t.Errorf("%d entries: %d, %v", n, len(got), failed)
			}
		} else if failed == nil {
			t.Errorf("%d entries: no failure", n)
		} else {
			wantError(t, failure.Final(failed), want, "more than the limit of 10000 entries")
		}
		// The response is longer than what is read without a reservation.
		if g.work.Size() < p.works.State().Capacity/2 {
			t.Errorf("%d entries: reserved %+v", n, g.work)
		}
		g.release()
	}
}
