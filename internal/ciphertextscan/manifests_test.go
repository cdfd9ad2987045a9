package ciphertextscan

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// locate returns the locations of a text.
func locate(t *testing.T, s *corev1.Secret, text string) (locations []Location) {
	t.Helper()
	times := 0
	if err := (Search{Locations: true}).Secret(s, func(x Text) {
		if x.Ciphertext == text {
			locations = x.Locations
			times++
		}
	}); err != nil || times != 1 {
		t.Errorf("found %d times, %v", times, err)
	}
	return locations
}

func wrap(s string, width int) string {
	var lines []string
	for part := range slices.Chunk([]byte(s), width) {
		lines = append(lines, string(part))
	}
	return strings.Join(lines, "\n")
}

// compress returns a Helm release with any content.
func compress(content string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(content))
	w.Close()
	return []byte(encode(b.String()))
}

// manyManifests has a text in more manifests than a Text has locations.
func manyManifests(text string) string {
	var b strings.Builder
	for i := range 20 {
		fmt.Fprintf(&b, "kind: Secret\nmetadata: {name: n%d}\nstringData: {e: %q}\n---\n", i, text)
	}
	return b.String()
}

func manyLocations() (all []Location) {
	for i := range maxLocations - 1 {
		all = append(all, Location{"shop", fmt.Sprintf("n%d", i), "e"})
	}
	return all
}

func TestManifestLocations(t *testing.T) {
	old := text(1, 600)
	db, other := Location{"shop", "db", "e"}, Location{"ops", "db", "e"}
	secret := "kind: Secret\nmetadata: {name: db, namespace: ops}\ndata:\n  e: " + encode(old) + "\n"
	for name, test := range map[string]struct {
		value string
		want  []Location
	}{
		"without a namespace": {"kind: Secret\nmetadata: {name: db}\ndata: {e: " + encode(old) + "}", []Location{db}},
		"namespace":           {secret, []Location{other}},
		"stringData":          {"kind: Secret\nmetadata: {name: db}\nstringData: {e: '" + old + "'}", []Location{db}},
		"block": {"kind: Secret\nmetadata: {name: db}\ndata:\n  e: |\n    " +
			strings.ReplaceAll(wrap(encode(old), 76), "\n", "\n    "), []Location{db}},
		"anchor": {"x: &x " + encode(old) + "\nkind: Secret\nmetadata: {name: db}\ndata: {e: *x}", []Location{db}},
		"list": {"kind: List\nitems:\n- kind: Secret\n  metadata: {name: db}\n  data: {e: " + encode(old) + "}\n",
			[]Location{db}},
		"second document": {"kind: ConfigMap\n---\n# Secret metadata\n---\n" + secret, []Location{other}},
		"two":             {secret + "---\n" + strings.Replace(secret, "ops", "shop", 1), []Location{other, db}},
		"JSON": {fmt.Sprintf("{\n\t\"kind\": \"Secret\", \"x\": \"\\ud83d\\ude00\", \"metadata\": {\"name\": \"db\"}, "+
			"\"data\": {\"n\": 1, \"e\": %q}}", encode(old)), []Location{db}},
		"JSON list": {fmt.Sprintf(`{"kind":"SecretList","items":[{"metadata":{"name":"db"},"data":{"e":%q}}]}`, encode(old)),
			[]Location{db}},
		"base64":          {encode(secret), []Location{other}},
		"base64 in lines": {wrap(encode(secret), 76) + "\n", []Location{other}},
		"base64 for URLs": {base64.URLEncoding.EncodeToString([]byte(secret + "# \xff\xfe\xff")), nil}, // not UTF-8
		"manifest in a manifest": {"kind: Secret\nmetadata: {name: db}\nstringData: {e: " + quote(secret) + "}",
			[]Location{db, other}},
		"annotation in a manifest": {"kind: Secret\nmetadata:\n  name: x\n  annotations: {last: " + quote(secret) + "}\n",
			[]Location{other}},
		"many manifests": {strings.Repeat(secret+"---\n", 3) + manyManifests(old),
			append([]Location{other}, manyLocations()...)},
		"another kind":     {strings.Replace(secret, "Secret", "SecretX", 1), nil},
		"not YAML":         {"{{ if x }}\n" + secret, nil},
		"malformed names":  {strings.Replace(secret, "ops", "a/b", 1), nil},
		"name is too long": {strings.Replace(secret, "name: db", "name: "+strings.Repeat("x", 254), 1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := &corev1.Secret{Data: map[string][]byte{"f": []byte(test.value)}}
			s.Namespace = "shop"
			if got := locate(t, s, old); !slices.Equal(got, test.want) {
				t.Errorf("entry: got %v, want %v", got, test.want)
			}
			s.Annotations, s.Data = map[string]string{"last": test.value}, nil
			if got := locate(t, s, old); !slices.Equal(got, test.want) {
				t.Errorf("annotation: got %v, want %v", got, test.want)
			}
		})
	}
}

// TestReleaseParts has a text anywhere in a release that is longer than a part.
func TestReleaseParts(t *testing.T) {
	for round := range 5 {
		old := text(1, 28+rand.IntN(2000))
		before := strings.Repeat("x", rand.IntN(maxPart))
		filler := strings.Repeat("# a line\n", maxPart/8)
		for name, content := range map[string]string{
			"lines":    `{"manifest":` + quote(filler+before+" "+old+"\n"+filler) + `}`,
			"one line": `{"manifest":` + quote(strings.Repeat(" ", maxPart-rand.IntN(5000))+old+strings.Repeat(" ", 5000)) + `}`,
			"chart file": `{"chart":{"files":[{"data":"` + encode(strings.Repeat("\x00", maxPart/4*3-rand.IntN(5000))+old+
				strings.Repeat(" ", 5000)) + `"}]}}`,
			"not JSON": strings.Repeat("x ", maxPart/2-rand.IntN(1000)) + old,
		} {
			s := &corev1.Secret{Type: helmRelease, Data: map[string][]byte{"release": compress(content)}}
			if !slices.ContainsFunc(find(t, s), func(x Text) bool { return x.Ciphertext == old && x.InRelease }) {
				t.Errorf("round %d: %s: the text was not found", round, name)
			}
		}
	}
}

func TestReleaseLocations(t *testing.T) {
	old := text(1, 600)
	manifest := "# Source: x\napiVersion: v1\nkind: Secret\nmetadata:\n  name: db\ndata:\n  e: " + encode(old) + "\n"
	for name, content := range map[string]string{
		"manifest": `{"name":"x","manifest":` + quote("---\nkind: Secret\nmetadata: {}\n---\n"+manifest+"---\nx: y\n") + `}`,
		"escapes": `{"name":"\ud83d\ude00","manifest":` +
			strings.NewReplacer("a", `\u0061`, ":", `\u003A`, "/", `\/`).Replace(quote(manifest)) + `}`,
		"end of a part": `{"manifest":` + quote(strings.Repeat("---\nkind: ConfigMap\n", maxPart/20)+"---\n"+manifest) + `}`,
		"hook":          `{"hooks":[{"manifest":` + quote(manifest) + `}],"manifest":""}`,
	} {
		s := &corev1.Secret{Type: helmRelease, Data: map[string][]byte{"release": compress(content)}}
		s.Namespace = "shop"
		if got := locate(t, s, old); !slices.Equal(got, []Location{{"shop", "db", "e"}}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWanted(t *testing.T) {
	s := &corev1.Secret{Data: map[string][]byte{"a": []byte(text(1, 28) + " " + text(2, 28) + " " + encode(text(3, 28)))}}
	var versions []int
	search := Search{Wanted: func(v int) bool { return v != 2 }}
	err := search.Secret(s, func(x Text) { versions = append(versions, x.Version) })
	if slices.Sort(versions); err != nil || !slices.Equal(versions, []int{1, 3}) {
		t.Errorf("%v, %v", versions, err)
	}
}

// TestLimits has manifests and releases that are not searched completely, which the error says.
func TestLimits(t *testing.T) {
	old := text(1, 28)
	secret := "kind: Secret\nmetadata: {name: x}\ndata:\n  a: " + encode(old) + "\n"
	several := strings.Repeat(secret+"x: ["+strings.Repeat("a,", 10_000)+"]\n---\n", 20)
	little := 1 << 20
	for name, test := range map[string]struct {
		search Search
		secret corev1.Secret
		want   string
	}{
		"many values": {secret: corev1.Secret{Data: map[string][]byte{"e": []byte(secret + strings.Repeat("- a\n", 60_000))}},
			want: `entry "e": it has manifests with too many values or levels`},
		"deep JSON": {secret: corev1.Secret{Data: map[string][]byte{"e": []byte(`{"kind":"Secret","metadata":"` + old +
			`","x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + "}")}}, want: "too many values or levels"},
		"many manifests": {secret: corev1.Secret{Data: map[string][]byte{"e": []byte(several)}}, want: "too many values"},
		"many releases": {search: Search{Releases: &little},
			secret: corev1.Secret{Type: helmRelease, Data: map[string][]byte{
				"a": compress(strings.Repeat("x", 600<<10)), "b": compress(strings.Repeat("x", 600<<10))}},
			want: `entry "b": the namespace has too many Helm releases`},
	} {
		test.search.Locations = true
		err := test.search.Secret(&test.secret, func(Text) {})
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), old[9:]) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if little > 0 {
		t.Errorf("%d bytes of releases are left", little)
	}
	// A version that is not wanted costs nothing.
	large := &corev1.Secret{Data: map[string][]byte{"e": []byte(secret + strings.Repeat("- a\n", 60_000))}}
	if err := (Search{Locations: true, Wanted: func(int) bool { return false }}).Secret(large, nil); err != nil {
		t.Error(err)
	}
}

// TestMemory searches releases that are made to take much memory: of 16 MiB in make test-long.
func TestMemory(t *testing.T) {
	length := maxRelease
	if os.Getenv("SECRETMANAGER_TEST_LONG") == "" {
		length /= 16 // the race detector makes a search slow
	}
	defer debug.SetGCPercent(debug.SetGCPercent(20))
	secret := "kind: Secret\nmetadata: {name: x}\ndata:\n  a: " + encode(text(1, 28)) + "\n"
	nested := secret
	for range 6 {
		nested = "kind: Secret\nmetadata: {name: x}\nstringData:\n  a: " + quote(nested) + "\n  b: " + quote(nested) + "\n"
	}
	for name, part := range map[string]string{
		"flow": secret + "x: [" + strings.Repeat("a,", 24_000) + "]\n---\n", "nested": nested + "---\n",
		"list": secret + "x:\n" + strings.Repeat("- a\n", 49_000) + "---\n", "texts": text(1, 28) + "\n",
		"base64": encode(strings.Repeat("vault:v1:A", 100)),
	} {
		t.Run(name, func(t *testing.T) {
			value := compress(quote(strings.Repeat(part, max(length/len(part)-1, 1))))
			s := &corev1.Secret{Type: helmRelease, Data: map[string][]byte{"release": value}}
			done, most := make(chan struct{}), make(chan uint64)
			base := heap()
			go func() {
				var peak uint64
				for ticker := time.Tick(5 * time.Millisecond); ; {
					select {
					case <-done:
						most <- peak
						return
					case <-ticker:
						peak = max(peak, heap())
					}
				}
			}()
			_ = Search{Locations: true}.Secret(s, func(Text) {})
			close(done)
			if peak := <-most; peak > base+24<<20 {
				t.Errorf("it took %d MiB", (peak-base)>>20)
			}
		})
	}
}

// heap returns the bytes in use, with garbage.
func heap() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
