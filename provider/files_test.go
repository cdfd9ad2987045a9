package provider

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// TestFileFailures: what the plaintext is not fit for is said without saying
// what it is.
func TestFileFailures(t *testing.T) {
	e := newEnv(t)
	s := serve(t, e.vault.Address)
	entries := map[string]string{
		"doc":  e.encrypt(t, ciphertext.Strict, "matrix", "doc", `{"a": {"b": "`+canaryPlaintext+`"}, "`+canaryToken+`": 1}`),
		"text": e.encrypt(t, ciphertext.Strict, "matrix", "text", canaryPlaintext),
	}
	tests := []struct {
		name, objects string
		texts         []string
	}{
		{"missing field", "- {objectName: f, secretKey: doc, field: a.c}",
			[]string{`file "f" from entry "doc": field "a.c" does not exist`, "objects in the class"}},
		{"field of a text", "- {objectName: text, field: a}",
			[]string{`file "text" from entry "text": field "a" does not exist`}},
		{"not base64", "- {objectName: text, encoding: base64}", []string{"it is not base64"}},
		{"not hex", "- {objectName: f, secretKey: doc, field: a.b, encoding: hex}", []string{"it is not hex digits"}},
		{"all at once", "- {objectName: text, encoding: hex}\n- {objectName: doc}\n- {objectName: f, secretKey: doc, " +
			"field: x}\n- {objectName: g, secretKey: doc, field: a.b.c}",
			[]string{`file "text"`, `file "f" from entry "doc": field "x" does not exist`,
				`file "g" from entry "doc": field "a.b.c" does not exist`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := s.Mount(t.Context(), mountRequest(e.params("objects", test.objects), entries))
			wantError(t, err, failure.InvalidContent, append(test.texts, "making the files of Secret "+e.namespace+"/matrix")...)
			clean(t, append([]string{e.jwt}, canaries...), err.Error(), s.log.String())
		})
	}
}

// What the kubelet hands over is trusted to be a Secret's, but the names become
// paths and contexts.
func TestEntryNames(t *testing.T) {
	s := serve(t, "http://127.0.0.1:1")
	for _, name := range []string{"..data", "a/b", ".", "..", "", "a b"} {
		_, err := s.Mount(t.Context(), mountRequest(plainParams(), map[string]string{name: canaryCiphertext}))
		wantError(t, err, failure.InvalidEntryName, "every entry of Secret demo/matrix", "must be a name of letters")
	}
}

// The driver counts the whole answer, names and all, and the provider's memory
// is not filled with what cannot be sent.
func TestFilesAreBounded(t *testing.T) {
	p := plainProvider(t)
	r := &request{pod: pod{namespace: "demo"}, Class: class.Class{Secret: "matrix"}}
	just := map[string][]byte{"x": make([]byte, maxResponse-16)}
	_, failed := p.buildResponse(t.Context(), r, []class.Object{{Path: "a-long-name-of-a-file", Entry: "x"}}, just)
	if failed == nil {
		t.Error("an answer that the driver does not take")
	} else {
		wantError(t, failure.Final(failed), failure.VolumeTooLarge, "larger than 4 MiB")
	}

	objects := make([]class.Object, 0, class.MaxObjects)
	for i := range class.MaxObjects {
		objects = append(objects, class.Object{Path: fmt.Sprint(i), Entry: "x", Encoding: class.Hex})
	}
	half := map[string][]byte{"x": bytes.Repeat([]byte("00"), 1<<20)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, failed = p.buildResponse(t.Context(), r, objects, half); failed == nil {
		t.Error("an answer of gigabytes")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("it took %d MiB", n>>20)
	}
}

func TestFilesEndInTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, failed := plainProvider(t).buildResponse(ctx, &request{}, []class.Object{{Path: "x", Entry: "x"}},
		map[string][]byte{"x": nil})
	if failed == nil {
		t.Fatal("no failure")
	}
	wantError(t, failure.Final(failed), failure.MountTimeout, "not finished within 25s")
}
