package provider

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// contentFailures returns plaintext that does not fit its object. Messages must not
// reveal it.
func (e *failureEnv) contentFailures(t *testing.T) []failureTest {
	long := map[string]string{"x": e.encrypt(t, ciphertext.Strict, "matrix", "x",
		strings.Repeat(canaryPlaintext, 700_000/len(canaryPlaintext)))}
	files := func(n int) *v1alpha1.MountRequest {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "- {objectName: f%d, secretKey: x}\n", i)
		}
		return e.mount(long, "objects", b.String())
	}
	tests := []failureTest{
		// The driver accepts the default size of gRPC.
		fails("files with room", nil, files(5)),
		fails("files without room", failure.VolumeTooLarge, files(6), "larger than 4 MiB", "fewer entries"),
		fails("files of gigabytes", failure.VolumeTooLarge, files(class.MaxObjects), "larger than 4 MiB"),
	}
	for _, test := range []struct {
		name, objects string
		texts         []string
	}{
		{"missing field", "- {objectName: f, secretKey: doc, field: a.c}",
			[]string{`file "f" from entry "doc": field "a.c" does not exist`, "objects in the class"}},
		{"null field", "- {objectName: f, secretKey: doc, field: c}", nil},
		{"field of a text", "- {objectName: x, field: a}",
			[]string{`file "x" from entry "x": field "a" does not exist`}},
		{"not base64", "- {objectName: x, encoding: base64}", []string{"it is not base64"}},
		{"not hex", "- {objectName: f, secretKey: doc, field: a.b, encoding: hex}", []string{"it is not hex digits"}},
		{"all at once", "- {objectName: x, encoding: hex}\n- {objectName: doc}\n- {objectName: f, secretKey: doc, " +
			"field: x}\n- {objectName: g, secretKey: doc, field: a.b.c}",
			[]string{`file "x"`, `file "f" from entry "doc": field "x" does not exist`,
				`file "g" from entry "doc": field "a.b.c" does not exist`}},
	} {
		tests = append(tests, fails(test.name, failure.InvalidContent, e.mount(e.good, "objects", test.objects),
			append(test.texts, "making the files of Secret "+e.namespace+"/matrix")...))
	}
	return tests
}

// The driver limits the whole response, including names, and the provider does not
// fill its memory with a response that cannot be sent.
func TestFilesAreBounded(t *testing.T) {
	p := plainProvider(t)
	r := &request{pod: pod{namespace: "demo"}, Class: class.Class{Secret: "matrix"}}
	just := map[string][]byte{"x": make([]byte, maxResponse-16)}
	_, failed := p.buildResponse(t.Context(), r, []class.Object{{Path: "a-long-name-of-a-file", Entry: "x"}}, just)
	if failed == nil {
		t.Error("built a response that the driver does not accept")
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
		t.Error("built a response of gigabytes")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
		t.Errorf("allocated %d MiB", n>>20)
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
