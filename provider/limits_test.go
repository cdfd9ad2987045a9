package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// atLimit returns a text of n bytes that begins and ends as told.
func atLimit(n int, begin, middle, end string) string {
	return begin + strings.Repeat(middle, n-len(begin)-len(end)) + end
}

// TestLimits: each limit of what an author writes, just below and just above.
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
	path := func(folders int) string { return strings.Repeat("d/", folders) + "f" }
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
				all[fmt.Sprint(kubeletPrefix, i)] = ""
			}
			return mountRequest(all, nil)
		}, "attributes have more than the limit of 200 members"},
		{"a parameter", maxParameter, with("audience", func(n int) string { return atLimit(n, "", "a", "") }),
			"audience: has 4097 bytes, more than the limit of 4 KiB"},
		{"tokens in bytes", maxTokenBytes, with(keyTokens, func(n int) string { return atLimit(n, `{"a":{"token":"`, "t", `"}}`) }),
			"serviceAccount.tokens: has 262145 bytes, more than the limit of 256 KiB"},
		{"tokens", maxTokens, with(keyTokens, tokensOf), "more than the limit of 100 tokens"},
		{"entries", maxEntries, func(n int) *v1alpha1.MountRequest {
			all := map[string]string{}
			for i := range n {
				all[fmt.Sprint(i)] = ""
			}
			return mountRequest(plainParams(), all)
		}, "secrets have more than the limit of 10000 members"},
		{"the target path", maxPath, func(n int) *v1alpha1.MountRequest {
			in := mountRequest(plainParams(), nil)
			in.TargetPath = strings.Repeat("t", n)
			return in
		}, "the target path: has 4096 bytes"},
		{"objects in bytes", maxObjectsBytes, with("objects", func(n int) string { return atLimit(n, "- {objectName: x} #", "x", "") }),
			"objects: has 524289 bytes, more than the limit of 512 KiB"},
		{"objects", maxObjects, with("objects", func(n int) string { return manyObjects("x", n) }), "objects: has 2001 items, more than the limit of 2000"},
		// A comment counts like a value, and the list and its item have six.
		{"values in objects", maxNodes, with("objects", func(n int) string { return "- objectName: x\n" + strings.Repeat("#\n", n-2-1-2) }),
			"objects: holds more values than the limit of 50000"},
		{"a field in bytes", maxField, with("objects", func(n int) string { return "- {objectName: x, field: " + strings.Repeat("f", n) + "}" }),
			"objects[0].field: has 4097 bytes, more than the limit of 4 KiB"},
		{"parts of a field", maxDepth, with("objects", func(n int) string { return "- {objectName: x, field: f" + strings.Repeat(".f", n-1) + "}" }),
			"objects[0].field: has 101 parts, more than the limit of 100"},
		{"directories of a file", maxFolders, with("objects", func(n int) string { return "- {objectName: " + path(n) + ", secretKey: x}" }),
			"is in more directories than the limit of 32"},
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

// TestEveryFieldOfEveryObject: the limits leave room for as many objects as there may
// be, each with all of its fields, however it is written.
func TestEveryFieldOfEveryObject(t *testing.T) {
	for name, item := range map[string]string{
		"block": "- objectName: database/credentials-%04d.properties\n  secretKey: database-credentials-%04d.json\n" +
			"  field: production.databases.primary.password\n  encoding: base64\n  filePermission: \"0440\"\n",
		"flow": "- {objectName: database/credentials-%04d.properties, secretKey: database-credentials-%04d.json, " +
			"field: production.databases.primary.password, encoding: base64, filePermission: \"0440\"}\n",
	} {
		var b strings.Builder
		for i := range maxObjects {
			fmt.Fprintf(&b, item, i, i)
		}
		objects, problems := parseObjects(b.String(), "/var/lib/kubelet")
		if len(objects) != maxObjects || len(problems) > 0 {
			t.Errorf("%s: %d objects, problems %q", name, len(objects), problems)
		}
	}
}

// TestDocumentLimits: those of a plaintext that fields are taken from.
func TestDocumentLimits(t *testing.T) {
	jsonList := func(n int) string { return "[" + strings.Repeat("0,", n-2) + "0]" }
	jsonDepth := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	for _, test := range []struct {
		name     string
		limit    int
		document func(n int) string
		err      error
	}{
		{"values of JSON", maxNodes, jsonList, errTooManyValues},
		{"depth of JSON", maxDepth, jsonDepth, errTooDeep},
		{"values of YAML", maxNodes, func(n int) string { return strings.Repeat("-\n", n-2) }, errTooManyValues},
		{"depth of YAML in brackets", maxDepth, func(n int) string { return "# YAML\n" + jsonDepth(n) }, errTooDeep},
		{"depth of YAML in blocks", maxDepth, func(n int) string { return strings.Repeat("- ", n) + "a" }, errTooDeep},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parseDocument([]byte(test.document(test.limit))); err != nil {
				t.Errorf("at the limit: %v", err)
			}
			if _, err := parseDocument([]byte(test.document(test.limit + 1))); err != test.err {
				t.Errorf("above the limit: %v, want %v", err, test.err)
			}
		})
	}
}

// TestNothingIsBuilt: what is above a limit is refused before anything is built of it.
func TestNothingIsBuilt(t *testing.T) {
	p := plainProvider(t)
	unknown := map[string]string{}
	for i := range 50_000 {
		unknown[fmt.Sprint(i)] = ""
	}
	inputs := map[string]*v1alpha1.MountRequest{
		"parameters": mountRequest(unknown, nil),
		"entries":    mountRequest(plainParams(), unknown),
		"tokens":     mountRequest(plainParams(keyTokens, `{"a":{}`+strings.Repeat(`,"a":{}`, 30_000)+`}`), nil),
	}
	for name, text := range map[string]string{
		"mappings": "- {" + strings.Repeat("a: ,", 120_000) + "}", "anchors": "[" + strings.Repeat("&a ,", 120_000) + "]",
		"lists": "[" + strings.Repeat("[],", 170_000) + "]", "items": strings.Repeat("-\n", 250_000), "comments": strings.Repeat("#\n- a\n", 80_000),
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
			t.Errorf("%s: %d KiB were allocated for %d KiB", name, n>>10, size>>10)
		}
	}
}

// TestProblemsAreBounded: of an input with thousands of problems, the first are
// reported and the others are not looked for.
func TestProblemsAreBounded(t *testing.T) {
	bad := strings.Repeat("- {objectName: ., secretKey: x}\n", maxObjects)
	_, found := parseObjects(bad, "/t")
	if len(found) != maxProblems+1 || !strings.Contains(found[maxProblems], "[20]: is not checked, nor is what follows") {
		t.Errorf("%d problems, the last one %q", len(found), found[len(found)-1])
	}
	if _, found := parseObjects(strings.Repeat("- {objectName: ., secretKey: x}\n", maxProblems-1), "/t"); len(found) != maxProblems-1 {
		t.Errorf("%d problems", len(found))
	}
	unknownNames := map[string]string{}
	for i := range 150 {
		unknownNames[fmt.Sprint(i)] = "x"
	}
	if found := unknown(unknownNames); len(found) != maxProblems {
		t.Errorf("%d unknown parameters", len(found))
	}
	if found := notStrings("secrets", "{"+strings.Repeat(`"a":1,`, 10)+`"b":2}`); len(found) != 2 {
		t.Errorf("problems %q", found)
	}

	// Each of the files fails, and to make each takes the whole document.
	p, r := plainProvider(t), &request{pod: pod{namespace: "demo"}, secret: "matrix"}
	var objects []object
	for i := range maxObjects {
		objects = append(objects, object{path: fmt.Sprint(i), entry: "x", field: []string{fmt.Sprint(i)}, encoding: hexed})
	}
	document := map[string]any{}
	for i := range maxObjects {
		document[fmt.Sprint(i)] = "not hex"
	}
	_, failed := p.files(t.Context(), r, objects, map[string][]byte{"x": []byte(toJSON(document))})
	if failed == nil || strings.Count(failed.Cause, "not hex digits") != maxProblems {
		t.Errorf("got %v", failed)
	}
}

// TestWorkIsBounded: documents are not read again and again.
func TestWorkIsBounded(t *testing.T) {
	p, r := plainProvider(t), &request{pod: pod{namespace: "demo"}, secret: "matrix"}
	document := []byte("# YAML\na: [" + strings.Repeat("1,", 20_000) + "1]\nb: '" + strings.Repeat(" ", 700<<10) + "'")
	objects := func(n int, field string, e encoding) (all []object) {
		for i := range n {
			all = append(all, object{path: fmt.Sprint(i), entry: "x", field: []string{field}, encoding: e})
		}
		return all
	}
	// One result for all that want the same.
	w := &work{ctx: t.Context(), left: maxWork}
	s := &source{plaintext: document, work: w, made: map[string]made{}}
	for _, o := range objects(100, "a", asIs) {
		if _, err := s.content(o); err != nil {
			t.Fatal(err)
		}
	}
	if used := maxWork - w.left; used > 30_000 {
		t.Errorf("%d values were read for one field", used)
	}
	// What decodes to nothing holds nothing.
	if content, err := base64d.decode([]byte("aG" + strings.Repeat("\n", 700<<10) + "k=")); err != nil || cap(content) > 64 {
		t.Errorf("%d bytes are held, %v", cap(content), err)
	}
	if _, failed := p.files(t.Context(), r, objects(maxObjects, "b", base64d), map[string][]byte{"x": document}); failed != nil {
		t.Error(failed)
	}
	// Different fields, each with nearly all of the document in it.
	nested := `"x"`
	var deep []object
	var field []string
	for i := range maxDepth - 2 {
		nested = fmt.Sprintf("{f: %s}", nested)
		field = append(field[:len(field):len(field)], "f")
		deep = append(deep, object{path: fmt.Sprint(i), entry: "x", field: field})
	}
	w = &work{ctx: t.Context(), left: 1000}
	s = &source{plaintext: []byte(nested), work: w, made: map[string]made{}}
	var err error
	for _, o := range deep {
		if _, err = s.content(o); err != nil {
			break
		}
	}
	if err != errTooMuchWork {
		t.Errorf("got %v", err)
	}
	if err := (&work{left: 10}).do(10); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := (&work{left: 10}).do(11); err != errTooMuchWork {
		t.Errorf("above the limit: %v", err)
	}
}

// TestSecretEntriesAreBounded: those of a Secret that is read as the pod.
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
		if p.config.Kubernetes, err = NewKubernetes(&rest.Config{Host: api.URL}); err != nil {
			t.Fatal(err)
		}
		r := &request{pod: pod{"demo", "app-0", "uid-0", "app"}, secret: "matrix", tokens: tokens{"": {canaryToken, time.Time{}}}}
		var h holds
		got, _, failed := p.entries(t.Context(), r, &h)
		if want == nil {
			if failed != nil || len(got) != n {
				t.Errorf("%d entries: %d, %v", n, len(got), failed)
			}
		} else if failed == nil {
			t.Errorf("%d entries: no failure", n)
		} else {
			wantError(t, failure.Final(failed), want, "more than the limit of 10000 entries")
		}
		// Its answer is longer than what is read without a reservation.
		if h.work == nil || h.work.n < p.works.capacity/2 {
			t.Errorf("%d entries: reserved %+v", n, h.work)
		}
		h.release()
	}
}

// FuzzYAMLNodes: no text becomes more nodes than are counted before it is parsed.
func FuzzYAMLNodes(f *testing.F) {
	for _, seed := range []string{
		"- {a: ,a: }", "[&a ,&b ]", "[[],[]]", "-\n-\n", "? a\n? b", "? - a\n: - b", "[? a : b, c]", "[a: b, c: d]", "{a, b}", "{\"a\":b,'c':d}",
		"- - - a", "a:\n- b\n- c", "a: b: c", "-\u0085- a", "-\u2028- a", "a:\u2029b", "- !t a\n- *a", "%TAG ! x\n--- a", "--- a\n--- b", ": b", "{:,}", "[:,]",
		"- |\n a\n- >\n b", "- \"a, b\"", "a: &x [*x]", "<<: {a: b}", "-\t- a", "{? a}", "[a,,b]", "# a\n- b # c\n", "[-,-]", "{a: {b: {c: }}}", "\ufeff- a",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var doc yaml.Node
		if checkYAML(text) != nil || yaml.Unmarshal([]byte(text), &doc) != nil {
			return
		}
		if n, bound := countNodes(&doc), yamlNodes(text); n > bound {
			t.Errorf("%q has %d nodes, and %d were counted", text, n, bound)
		}
	})
}

func countNodes(n *yaml.Node) int {
	count := 1
	for _, child := range n.Content {
		count += countNodes(child)
	}
	return count
}

// FuzzJSONSize: no JSON holds more values, or nests deeper, than is counted before.
func FuzzJSONSize(f *testing.F) {
	for _, seed := range []string{`{}`, `[]`, `[[],[]]`, `{"a":[1,{"b":"c"}]}`, `"[,"`, `{"\"[":","}`, ` [ 1 , 2 ] `, `"\\"`, `[{"":0},{"":0}]`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		values, depth := countValues(v)
		if gotValues, gotDepth := jsonSize([]byte(text)); gotValues < values || gotDepth < depth {
			t.Errorf("%q has %d values at depth %d, and %d at %d were counted", text, values, depth, gotValues, gotDepth)
		}
	})
}

func countValues(v any) (values, depth int) {
	var children []any
	switch v := v.(type) {
	case []any:
		children = v
	case map[string]any:
		for _, child := range v {
			children = append(children, child)
		}
	default:
		return 1, 0
	}
	values = 1
	for _, child := range children {
		n, d := countValues(child)
		values, depth = values+n, max(depth, d)
	}
	return values, depth + 1
}
