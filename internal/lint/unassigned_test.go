package lint

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// wrapped returns base64 in lines of n characters, indented by four.
func wrapped(text string, n int) string {
	var lines []string
	for ; len(text) > n; text = text[n:] {
		lines = append(lines, text[:n])
	}
	return strings.Join(append(lines, text), "\n    ")
}

func TestUnassigned(t *testing.T) {
	text, plain := ct(7), "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: y}\n"
	configMap := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
	annotated := func(annotation string) string {
		return strings.Replace(good, "labels:", "annotations: {"+annotation+"}, labels:", 1)
	}
	for _, test := range []struct {
		name, source string
		want         []int
		message      string // a part of the first
	}{
		{"entries", good + "---\n" + secretOf("stringData: {b: '"+text+"'}"), nil, ""},
		{"values file", "image: x\npassword: " + text + "\n", []int{2}, "the file has transit ciphertext of key version 7"},
		{"Secret without label, data", plain + "data: {a: " + b64(text) + "}\n", []int{4},
			"Secret y/x has transit ciphertext of key version 7"},
		{"Secret without label, stringData", plain + "stringData:\n  a: x\n  b: " + text + "\n", []int{6}, "set the label"},
		{"base64 in lines", plain + "data:\n  a: |\n    " + wrapped(b64(text), 30) + "\n", []int{5}, "Secret y/x"},
		{"another document", good + "---\n" + configMap + "data:\n  a: " + text + "\n", []int{12}, "ConfigMap x"},
		{"block", configMap + "data:\n  a: |\n    x: y\n\n    z: " + text + "\n    z: z\n", []int{8}, "ConfigMap x"},
		{"folded block", configMap + "data:\n  a: >\n    x\n    " + text + "\n", []int{5}, "ConfigMap x"},
		{"two on a line", configMap + "data: {a: '" + ct(9) + "', b: '" + text + "'}\n", []int{4}, "key version 7"},
		{"name of a field", configMap + "data: {'" + text + "': x}\n", []int{4}, "ConfigMap x has"},
		{"JSON", `{"kind": "ConfigMap", "metadata": {"name": "x"},` + "\n" + `"data": {"a": "` +
			strings.ReplaceAll(text, "=", `\u003d`) + `"}}`, []int{2}, "ConfigMap x"},
		{"item of a list", "kind: List\nitems:\n- kind: ConfigMap\n  data: {a: " + b64(text) + "}\n",
			[]int{4}, "ConfigMap without"},
		{"patch", "- op: replace\n  path: /data/a\n  value: " + b64(text) + "\n", []int{3}, "the file"},
		{"generator", "kind: Kustomization\nsecretGenerator:\n- name: x\n  literals: [a=" + text + "]\n",
			[]int{4}, "Kustomization"},
		{"last applied", annotated(`kubectl.kubernetes.io/last-applied-configuration: '{"data":{"a":"` + b64(text) + `"}}'`),
			[]int{4}, `Secret demo/matrix: annotation "kubectl.kubernetes.io/last-applied-configuration" has`},
		{"the same text in an annotation", annotated("kapp.k14s.io/original: '" + ct(3) + "'"), []int{4}, "remove it"},
		{"annotation whose name is ciphertext", annotated("'" + ct(9) + "': '" + text + "'"),
			[]int{4}, "Secret demo/matrix has"},
		{"another field of a ciphertext Secret", secretOf("data: {a: " + b64(ct(3)) + "}\nold: {a: " + b64(text) + "}"),
			[]int{7}, "Secret demo/matrix"},
		{"comment", good + "#\n  # old: " + text + "\n", []int{8}, "a comment has transit ciphertext"},
		{"comment beside an entry", secretOf("data:\n  a: " + b64(ct(3)) + "\t# " + b64(text)), []int{7}, "a comment"},
		{"only a comment", "# " + text + "\n", []int{1}, "a comment"},
		{"comment before the end of a list", "a: [b, # " + text + "\n c]\n", []int{1}, "a comment"},
		{"data keys of SOPS", "a: ENC[x]\nsops:\n  hc_vault:\n  - {key_name: k, enc: " + text + "}\n", nil, ""},
		{"beside those", "a: " + text + "\nsops: {hc_vault: [{enc: x}]}\n", []int{1}, "the file"},
		{"too short", "a: vault:v1:AAAA\n", nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, err := manifest.Parse([]byte(test.source))
			if err != nil {
				t.Fatal(err)
			}
			var lines []int
			found := FindUnassigned(m)
			for _, u := range found {
				lines = append(lines, u.Line)
				if strings.Contains(u.Message, "AAAAAA") || strings.Contains(u.Message, "\n") {
					t.Errorf("message %q", u.Message)
				}
			}
			if !slices.Equal(lines, test.want) || !strings.Contains(fmt.Sprint(found), test.message) {
				t.Errorf("lines %v, not %v: %+v", lines, test.want, found)
			}
		})
	}
}
