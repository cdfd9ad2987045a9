package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/text/encoding/unicode"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/programs"
	"github.com/secretmanager-io/secretmanager/test/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// drawnFiles is the number of files that kubectl reads.
const drawnFiles = 600

// TestWhatKubectlReads compares Parse with kubectl: every ciphertext Secret that kubectl would create from a drawn file
// is found, with each of its entries, or Parse fails, and with it every gate.
func TestWhatKubectlReads(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{}
	for i := range drawnFiles {
		d := &drawer{prefix: fmt.Sprintf("f%d-", i)}
		text := rapid.Custom(d.file).Example(i)
		files[d.prefix] = text
		if err := os.WriteFile(filepath.Join(dir, d.prefix+".yaml"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	created := kubectlCreate(t, dir)
	refused, compared := map[string]bool{}, 0
	for _, secret := range created {
		prefix, _, _ := strings.Cut(secret.Name, "-")
		prefix += "-"
		f, err := Parse(files[prefix])
		if err != nil {
			refused[prefix] = true
			continue
		}
		compared++
		n := slices.IndexFunc(f.Secrets, func(s *Secret) bool { return s.Name == secret.Name })
		if n < 0 {
			t.Errorf("kubectl creates Secret %s, which is not found in\n%s", secret.Name, files[prefix])
			continue
		}
		checkEntries(t, f.Secrets[n], secret, files[prefix])
	}
	t.Logf("compared %d Secrets", compared)
	if compared < drawnFiles {
		t.Errorf("only %d Secrets were compared", compared)
	}
	for prefix := range refused {
		t.Errorf("kubectl reads this file, and Parse refuses it:\n%s", files[prefix])
	}
	replaced := 0
	for _, text := range files {
		replaced += checkReplace(t, text)
	}
	if replaced < drawnFiles/20 {
		t.Errorf("only %d files could be changed", replaced)
	}
}

// checkReplace replaces all ciphertext of a file, unless the file, a Secret in it or a value has a form that is only
// read.
func checkReplace(t *testing.T, text []byte) (replaced int) {
	t.Helper()
	f, err := Parse(text)
	if err != nil || f.Check() != nil {
		return 0
	}
	next := []byte("vault:v77:" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("x"), 28)))
	texts := map[*Entry][]byte{}
	for _, s := range f.Secrets {
		for _, e := range s.Entries {
			texts[e] = next
		}
	}
	if len(texts) == 0 {
		return 0
	}
	result, err := f.Replace(texts)
	if err != nil && strings.Contains(err.Error(), "write it out to rewrite it") {
		return 0
	}
	if err != nil {
		t.Errorf("%v, for\n%s", err, text)
		return 0
	}
	changed, err := Parse(result)
	if err != nil {
		t.Errorf("%v, for\n%s", err, result)
		return 0
	}
	for _, s := range changed.Secrets {
		for _, e := range s.Entries {
			if !bytes.Equal(e.Text, next) {
				t.Errorf("entry %s of %s is %q in\n%s", e.Name, s.Name, e.Text, result)
			}
		}
	}
	return 1
}

// checkEntries checks that the entries of a Secret are those that kubectl sends.
func checkEntries(t *testing.T, got *Secret, want corev1.Secret, text []byte) {
	t.Helper()
	values := map[string][]byte{}
	for name, value := range want.Data {
		values[name] = value
	}
	for name, value := range want.StringData {
		values[name] = []byte(value)
	}
	stored := got.AsStored().Data
	for name, value := range values {
		if !bytes.Equal(stored[name], value) {
			t.Errorf("entry %s of %s is %q, and kubectl sends %q, in\n%s", name, want.Name, stored[name], value, text)
		}
	}
	if len(stored) != len(values) {
		t.Errorf("%s has %d entries, and kubectl sends %d, in\n%s", want.Name, len(stored), len(values), text)
	}
}

// kubectlCreate returns the ciphertext Secrets that kubectl would create from the files of a directory. It skips files
// that kubectl does not accept.
func kubectlCreate(t *testing.T, dir string) (secrets []corev1.Secret) {
	t.Helper()
	kubectl, err := programs.Path(t.Context(), "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), kubectl, "--kubeconfig="+testenv.SharedAPIServer(t).Kubeconfig,
		"create", "--dry-run=client", "--validate=false", "-o", "json", "-f", dir)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// It fails if it refuses one of the files, and prints what it accepts.
	_ = cmd.Run()
	for decoder := json.NewDecoder(&stdout); decoder.More(); {
		var o struct {
			Kind  string
			Items []json.RawMessage
		}
		var raw json.RawMessage
		if err := decoder.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &o); err != nil {
			t.Fatal(err)
		}
		if o.Kind != "List" {
			o.Items = []json.RawMessage{raw}
		}
		for _, item := range o.Items {
			var s corev1.Secret
			if err := json.Unmarshal(item, &s); err == nil && s.Kind == "Secret" && s.Labels[ciphertext.LabelTransitKey] != "" {
				secrets = append(secrets, s)
			}
		}
	}
	if len(secrets) == 0 {
		t.Fatalf("kubectl accepts no file: %s", stderr.String())
	}
	return secrets
}

// keys are names of entries, many of which are not strings without quotes.
var keys = []string{"a", "a.b", "true", "True", "on", "No", "y", "1", "0x10", "010", "0o10", "0b11", "1_0", "1e3",
	"1.50", ".5", "+1", "-1", ".inf", "null", "~", ".dot", "-", "_", "é", "2001-01-01", "1:20", "=", "<<"}

var number = regexp.MustCompile(`^[0-9][0-9a-fx]*$`)

// A drawer draws the text of a file.
type drawer struct {
	prefix string // of the names of its Secrets
	n      int    // number of Secrets so far
}

// file draws a file of several documents.
func (d *drawer) file(t *rapid.T) []byte {
	asJSON := rapid.IntRange(0, 4).Draw(t, "JSON") == 0
	separators := []string{"---\n", "--- # next\n", "---\n---\n", "...\n---\n", "---   \n", "\n---\n# comment\n"}
	var b strings.Builder
	if !asJSON {
		b.WriteString(rapid.SampledFrom([]string{"", "", "---\n", "# comment\n", "\n\n", "%YAML 1.1\n---\n"}).Draw(t, "head"))
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "documents") {
		if i > 0 && !asJSON {
			b.WriteString(rapid.SampledFrom(separators).Draw(t, "separator"))
		}
		o := d.object(t, 0)
		if asJSON {
			b.Write(marshalJSON(t, o))
			b.WriteString(rapid.SampledFrom([]string{"\n", " ", "\n\n"}).Draw(t, "after"))
			continue
		}
		b.WriteString(d.yaml(t, o))
	}
	return encodeFile(t, b.String())
}

// encodeFile draws the encoding and the line ends of a file.
func encodeFile(t *rapid.T, text string) []byte {
	if rapid.IntRange(0, 5).Draw(t, "line ends") == 0 {
		text = strings.ReplaceAll(text, "\n", "\r\n")
	}
	switch rapid.IntRange(0, 12).Draw(t, "encoding") {
	case 0:
		return []byte("\ufeff" + text)
	case 1:
		encoded, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().Bytes([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return encoded
	}
	return []byte(text)
}

// object draws a ciphertext Secret, another object, or a list of objects.
func (d *drawer) object(t *rapid.T, depth int) map[string]any {
	if depth < 2 && rapid.IntRange(0, 3).Draw(t, "list") == 0 {
		list := map[string]any{"apiVersion": "v1",
			"kind": rapid.SampledFrom([]string{"List", "List", "SecretList"}).Draw(t, "kind")}
		var items []any
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			item := d.object(t, depth+1)
			if list["kind"] == "SecretList" && item["kind"] == "Secret" && rapid.Bool().Draw(t, "without kind") {
				delete(item, "kind")
				delete(item, "apiVersion")
			}
			items = append(items, item)
		}
		list["items"] = items
		return list
	}
	name := fmt.Sprintf("%ss%d", d.prefix, d.n)
	d.n++
	o := map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name,
		"labels": map[string]any{ciphertext.LabelTransitKey: "k"}}}
	if rapid.IntRange(0, 9).Draw(t, "other kind") == 0 {
		o["kind"] = "ConfigMap"
		return o
	}
	for _, field := range []string{"data", "stringData"} {
		if !rapid.Bool().Draw(t, field) {
			continue
		}
		entries, used := map[string]any{}, map[string]bool{}
		for range rapid.IntRange(0, 3).Draw(t, "entries") {
			value := d.value(t)
			if field == "data" {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			key := rapid.SampledFrom(keys).Draw(t, "key")
			// Of two keys that become the same, kubectl takes either.
			name := keyName(&yaml.Node{Kind: yaml.ScalarNode, Value: key})
			if !used[key] && !used[name] {
				used[key], used[name] = true, true
				entries[key] = value
			}
		}
		o[field] = entries
	}
	return o
}

// value draws the value of an entry: ciphertext, or something else.
func (d *drawer) value(t *rapid.T) string {
	if rapid.IntRange(0, 2).Draw(t, "ciphertext") > 0 {
		return fmt.Sprintf("vault:v%d:%s", rapid.IntRange(1, 30).Draw(t, "version"),
			base64.StdEncoding.EncodeToString(rapid.SliceOfN(rapid.Byte(), 28, 60).Draw(t, "text")))
	}
	return rapid.StringMatching(`[ -~\né]{0,20}`).Draw(t, "plain")
}

func marshalJSON(t *rapid.T, o map[string]any) []byte {
	text, err := json.Marshal(o)
	if rapid.Bool().Draw(t, "indented") {
		text, err = json.MarshalIndent(o, "", rapid.SampledFrom([]string{"  ", "\t", ""}).Draw(t, "indent"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// yaml draws the styles of a document.
func (d *drawer) yaml(t *rapid.T, o map[string]any) string {
	var doc yaml.Node
	if err := doc.Encode(o); err != nil {
		t.Fatal(err)
	}
	anchors := 0
	restyle(t, &doc, &anchors, false, false)
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(rapid.SampledFrom([]int{2, 3, 4, 8}).Draw(t, "indent"))
	if err := encoder.Encode(&doc); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// restyle draws the order of keys, the styles of mappings, lists and strings, comments, tags, aliases and merged
// fields.
func restyle(t *rapid.T, n *yaml.Node, anchors *int, inFlow, isKey bool) {
	switch n.Kind {
	case yaml.MappingNode:
		pairs := rapid.Permutation(mappingPairs(n)).Draw(t, "order")
		n.Content = nil
		for _, p := range pairs {
			n.Content = append(n.Content, p[0], p[1])
		}
		if rapid.IntRange(0, 3).Draw(t, "flow") == 0 {
			n.Style |= yaml.FlowStyle
		}
	case yaml.SequenceNode:
		if rapid.IntRange(0, 5).Draw(t, "flow") == 0 {
			n.Style |= yaml.FlowStyle
		}
	case yaml.ScalarNode:
		styles := []yaml.Style{0, 0, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle, yaml.TaggedStyle}
		if !inFlow {
			styles = append(styles, yaml.LiteralStyle, yaml.FoldedStyle)
		}
		n.Style = rapid.SampledFrom(styles).Draw(t, "style")
		if n.Style == 0 && isKey && rapid.Bool().Draw(t, "no quotes") {
			n.Tag = "" // write it as it is, also if it then is not a string
			if number.MatchString(n.Value) && rapid.Bool().Draw(t, "number") {
				n.Tag, n.Style = "!!int", yaml.TaggedStyle
			}
		}
		return
	}
	flow := inFlow || n.Style&yaml.FlowStyle != 0
	for i, c := range n.Content {
		key := n.Kind == yaml.MappingNode && i%2 == 0
		restyle(t, c, anchors, flow || key, key)
		if !flow && !key && c.Kind == yaml.ScalarNode && c.Style == 0 && rapid.IntRange(0, 9).Draw(t, "comment") == 0 {
			c.LineComment = "# comment"
		}
	}
	if n.Kind == yaml.MappingNode && len(n.Content) > 2 && rapid.IntRange(0, 4).Draw(t, "merge") == 0 {
		merge(n, anchors)
	}
}

func mappingPairs(n *yaml.Node) (pairs [][2]*yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		pairs = append(pairs, [2]*yaml.Node{n.Content[i], n.Content[i+1]})
	}
	return pairs
}

// merge moves the last field of a mapping to a mapping that is merged.
func merge(n *yaml.Node, anchors *int) {
	*anchors++
	last := len(n.Content) - 2
	merged := &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle, Anchor: fmt.Sprintf("a%d", *anchors),
		Content: slices.Clone(n.Content[last:])}
	for _, c := range merged.Content {
		flatten(c)
	}
	key := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!merge", Value: "<<"}
	n.Content = append(n.Content[:last:last], key, merged)
}

// flatten gives everything in a node a style that is valid in a flow mapping.
func flatten(n *yaml.Node) {
	n.LineComment = ""
	if n.Kind == yaml.ScalarNode {
		n.Style &^= yaml.LiteralStyle | yaml.FoldedStyle
	} else {
		n.Style |= yaml.FlowStyle
	}
	for _, c := range n.Content {
		flatten(c)
	}
}
