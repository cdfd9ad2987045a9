package class

import (
	"fmt"
	"maps"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/internal/document"
	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// valid returns valid parameters with changes, which are given as pairs.
func valid(changes ...string) map[string]string {
	p := map[string]string{"roleName": "r", "secretName": "s", "transitKey": "k"}
	for i := 0; i < len(changes); i += 2 {
		p[changes[i]] = changes[i+1]
	}
	return p
}

var settings = Settings{
	VaultAddress: "https://vault.example:8200/", AllowedAddresses: []string{"https://second.example/"},
	VaultNamespace: "team", Audience: "aud", AllowedAuthMounts: []string{"x/y/", "jwt"},
	AllowedNamespaces: []string{"/n/m"},
}

func TestParse(t *testing.T) {
	minimal := Class{Role: "r", Secret: "s", Key: ciphertext.Key{Mount: "transit", Name: "k"}, Scope: ciphertext.Strict}
	withDefaults := minimal
	withDefaults.AuthMount, withDefaults.Audience = DefaultAuthMount, "aud"
	withDefaults.VaultNamespace, withDefaults.VaultAddress = "team", "https://vault.example:8200"
	full := valid("transitMount", "a/b", "scope", "none", "vaultAuthMountPath", "x/y", "audience", "z",
		"vaultNamespace", "n/m/",
		"vaultAddress", "https://second.example/", AttributeClass, "c", AttributeProvider, Provider,
		KubeletPrefix+"new.in.kubernetes", "x",
		"objects", "- {objectName: a/b, secretKey: c, field: 'd.e', encoding: hex, filePermission: 0400}\n- objectName: f")
	all := Class{
		Role: "r", Secret: "s", Key: ciphertext.Key{Mount: "a/b", Name: "k"}, Scope: ciphertext.None,
		Objects:   []Object{{"a/b", "c", []string{"d", "e"}, Hex, 0o400}, {"f", "f", nil, "", DefaultMode}},
		AuthMount: "x/y", Audience: "z", VaultNamespace: "n/m", VaultAddress: "https://second.example",
	}
	for name, test := range map[string]struct {
		parameters map[string]string
		settings   *Settings
		want       Class
	}{
		"defaults of the format":        {valid("objects", "", "scope", " "), nil, minimal},
		"defaults of the operator":      {valid(), &settings, withDefaults},
		"all, without knowing settings": {full, nil, all},
		"all, with settings":            {full, &settings, all},
	} {
		got, errs := Parse(test.parameters, test.settings, "/t")
		if diff := cmp.Diff(test.want, got); diff != "" || errs != nil {
			t.Errorf("%s: %v\n%s", name, errs, diff)
		}
	}
	if diff := cmp.Diff([]string{"c", "f"}, all.Entries()); diff != "" {
		t.Error(diff)
	}
}

// TestParseCluster maps each address of a cluster to the whole cluster, and refuses lists.
func TestParseCluster(t *testing.T) {
	s := Settings{VaultAddress: "https://A:8200/, https://b:8200", AllowedAddresses: []string{"https://c:8200"}}
	const all = "https://a:8200,https://b:8200"
	for address, want := range map[string]string{"": all, "https://a:8200": all, "https://B:8200/": all,
		"https://c:8200": "https://c:8200"} {
		if got, errs := Parse(valid("vaultAddress", address), &s, ""); got.VaultAddress != want || errs != nil {
			t.Errorf("%q: %s, %v", address, got.VaultAddress, errs)
		}
	}
	for _, address := range []string{"https://d:8200", "https://b:8200,https://a:8200", "https://b:8200,https://d:8200"} {
		if _, errs := Parse(valid("vaultAddress", address), &s, ""); len(errs) != 1 {
			t.Errorf("%q: %v, want an error", address, errs)
		}
	}
}

// TestParseErrors verifies the path and type of each problem, and that it does not contain the value.
func TestParseErrors(t *testing.T) {
	const canary = "c4nary"
	object := func(text string) map[string]string { return valid("objects", text) }
	for name, test := range map[string]struct {
		parameters map[string]string
		want       string // "PATH: TYPE", joined
	}{
		"all at once": {valid("roleName", "", "secretName", "", "transitKey", " ", "scope", canary, "rolName", canary,
			"objects", "- {objectName: ., filePermission: 0888}\n- {objectNam: "+canary+"}"),
			`roleName: FieldValueRequired, secretName: FieldValueRequired, transitKey: FieldValueRequired, ` +
				`scope: FieldValueNotSupported, ` +
				`objects[0].filePermission: FieldValueInvalid, objects[0].objectName: FieldValueInvalid, ` +
				`objects[0].secretKey: FieldValueRequired, ` +
				`objects[1].objectNam: FieldValueForbidden, objects[1].objectName: FieldValueRequired, ` +
				`"rolName": FieldValueForbidden`},
		"TLS parameter":                 {valid("vaultSkipTLSVerify", canary), `"vaultSkipTLSVerify": FieldValueForbidden`},
		"auth mount":                    {valid("vaultAuthMountPath", canary), "vaultAuthMountPath: FieldValueForbidden"},
		"auth mount below allowed":      {valid("vaultAuthMountPath", "jwt/cert"), "vaultAuthMountPath: FieldValueForbidden"},
		"Vault namespace":               {valid("vaultNamespace", canary+"/"), "vaultNamespace: FieldValueForbidden"},
		"Vault address":                 {valid("vaultAddress", "https://"+canary), "vaultAddress: FieldValueForbidden"},
		"path in roleName":              {valid("roleName", "../"+canary), "roleName: FieldValueInvalid"},
		"path in transitKey":            {valid("transitKey", "a/../"+canary), "transitKey: FieldValueInvalid"},
		"path in transitMount":          {valid("transitMount", "a/../../"+canary), "transitMount: FieldValueInvalid"},
		"query in vaultAuthMountPath":   {valid("vaultAuthMountPath", "a?"+canary), "vaultAuthMountPath: FieldValueInvalid"},
		"empty parts in vaultNamespace": {valid("vaultNamespace", "/a//"+canary+"/"), "vaultNamespace: FieldValueInvalid"},
		"path in secretName":            {valid("secretName", "../"+canary), "secretName: FieldValueInvalid"},
		"long parameter": {valid("audience", strings.Repeat("a", MaxParameter+1)),
			"audience: FieldValueTooLong"},

		"objects: mapping":        {object("array: [c4nary]"), "objects: FieldValueInvalid"},
		"objects: text":           {object(canary), "objects: FieldValueInvalid"},
		"objects: not YAML":       {object("- {" + canary), "objects: FieldValueInvalid"},
		"objects: unknown anchor": {object("- *" + canary), "objects: FieldValueInvalid"},
		"objects: not UTF-8":      {object("- \xff"), "objects: FieldValueInvalid"},
		"objects: two documents": {object("- {objectName: a}\n---\n- {objectName: c4nary}"),
			"objects: FieldValueInvalid"},
		"objects: no items": {object("[]"), "objects: FieldValueInvalid"},
		"objects: comments": {object("# c4nary"), "objects: FieldValueInvalid"},
		"objects: too many": {object(strings.Repeat("- {objectName: a}\n", MaxObjects+1)),
			"objects: FieldValueTooMany"},
		"objects: too long": {object("- {objectName: a} #" + strings.Repeat("x", MaxObjectsBytes)),
			"objects: FieldValueTooLong"},
		"objects: too many values": {object("- objectName: x\n" + strings.Repeat("#\n", document.MaxNodes-4)),
			"objects: FieldValueInvalid"},
		"item that is a text": {object("- c4nary\n- {objectName: b}"), "objects[0]: FieldValueInvalid"},
		"alias":               {object("- &a {objectName: a}\n- *a"), "objects[1]: FieldValueInvalid"},
		"unknown field": {object("- {objectName: a, filepermission: 'c4nary'}"),
			"objects[0].filepermission: FieldValueForbidden"},
		"duplicate field": {object("- {objectName: b, secretKey: x, secretKey: c4nary}"),
			"objects[0].secretKey: FieldValueDuplicate"},
		"field that is a list": {object("- {objectName: [c4nary]}"),
			"objects[0].objectName: FieldValueTypeInvalid, objects[0].objectName: FieldValueRequired"},
		"field that is null": {object("- {objectName: a, field: }"), "objects[0].field: FieldValueTypeInvalid"},
		"same path": {object("- {objectName: c4nary}\n- {objectName: c4nary, secretKey: x}"),
			"objects[1].objectName: FieldValueInvalid"},
		"path below a file": {object("- {objectName: a}\n- {objectName: a/c4nary, secretKey: x}"),
			"objects[1].objectName: FieldValueInvalid"},
		"file that is a directory": {object("- {objectName: a/b/c, secretKey: x}\n- {objectName: a/b, secretKey: x}"),
			"objects[1].objectName: FieldValueInvalid"},
		"path .": {object("- {objectName: ., secretKey: x}"), "objects[0].objectName: FieldValueInvalid"},
		"path ..": {object("- {objectName: .., secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"path with ..": {object("- {objectName: a/../../c4nary, secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"path that begins with ..": {object("- {objectName: ..c4nary, secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"absolute path": {object("- {objectName: /c4nary, secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"zero byte": {object(`- {objectName: "c4nary\x00b", secretKey: x}`),
			"objects[0].objectName: FieldValueInvalid"},
		"path that is not clean": {object("- {objectName: a//c4nary, secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"long part": {object("- {objectName: " + strings.Repeat("a", 256) + ", secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"long path": {object("- {objectName: " + strings.Repeat("a/", 2000) + "a, secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"too many directories": {object("- {objectName: " + strings.Repeat("a/", MaxDirectories+1) + "a, secretKey: x}"),
			"objects[0].objectName: FieldValueInvalid"},
		"path without secretKey": {object("- {objectName: a/c4nary}"), "objects[0].secretKey: FieldValueRequired"},
		"invalid secretKey": {object("- {objectName: a, secretKey: a/c4nary}"),
			"objects[0].secretKey: FieldValueInvalid"},
		"filePermission 0888": {object("- {objectName: a, filePermission: '0888'}"),
			"objects[0].filePermission: FieldValueInvalid"},
		"filePermission 01777": {object("- {objectName: a, filePermission: '01777'}"),
			"objects[0].filePermission: FieldValueInvalid"},
		"filePermission without a 0": {object("- {objectName: a, filePermission: 440}"),
			"objects[0].filePermission: FieldValueInvalid"},
		"empty filePermission": {object("- {objectName: a, filePermission: ''}"),
			"objects[0].filePermission: FieldValueInvalid"},
		"unknown encoding": {object("- {objectName: a, encoding: c4nary}"),
			"objects[0].encoding: FieldValueNotSupported"},
		"empty part of a field": {object("- {objectName: a, field: a..c4nary}"), "objects[0].field: FieldValueInvalid"},
		"long field": {object("- {objectName: a, field: " + strings.Repeat("f", document.MaxField+1) + "}"),
			"objects[0].field: FieldValueInvalid"},
		"too many parts of a field": {object("- {objectName: a, field: f" + strings.Repeat(".f", document.MaxDepth) + "}"),
			"objects[0].field: FieldValueInvalid"},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := Parse(test.parameters, &settings, "/var/lib/kubelet")
			var got []string
			for _, err := range errs {
				got = append(got, err.Field+": "+string(err.Type))
				if text := err.Error(); strings.Contains(text, canary) || len(text) > 500 {
					t.Errorf("%q contains a value", text)
				}
			}
			if diff := cmp.Diff(test.want, strings.Join(got, ", ")); diff != "" {
				t.Errorf("%v\n%s", errs, diff)
			}
		})
	}
	// Without settings only the format of an address is checked.
	if _, errs := Parse(valid("vaultAddress", "vault:8200"), nil, ""); len(errs) != 1 || errs[0].Field != "vaultAddress" {
		t.Errorf("got %v", errs)
	}
}

// TestSuggestion verifies that the nearest parameter is suggested, whatever the case.
func TestSuggestion(t *testing.T) {
	for name, want := range map[string]string{"secretNames": "secretName", "TransitMOUNT": "transitMount",
		strings.Repeat("n", 9000): "roleName"} {
		_, errs := Parse(valid(name, "x"), nil, "")
		if len(errs) != 1 || len(errs[0].Error()) > 300 || len(name) < 100 &&
			!strings.HasSuffix(errs[0].Detail, "did you mean "+want+"?") {
			t.Errorf("%.20s: %v", name, errs)
		}
	}
}

// TestProblemsAreBounded verifies that only the first of thousands of problems are reported and the others not checked.
func TestProblemsAreBounded(t *testing.T) {
	unknown := valid()
	for i := range 150 {
		unknown[fmt.Sprint(i)] = "x"
	}
	for name, p := range map[string]map[string]string{
		"objects":    valid("objects", strings.Repeat("- {objectName: ., secretKey: x}\n", MaxObjects)),
		"fields":     valid("objects", "- {objectName: x"+strings.Repeat(", x: y", 1000)+"}"),
		"parameters": unknown,
	} {
		if _, errs := Parse(p, nil, ""); len(errs) != failure.MaxProblems {
			t.Errorf("%s: %d problems", name, len(errs))
		}
	}
}

// TestEveryFieldOfEveryObject verifies that the limits allow the maximum number of objects, each with all fields.
func TestEveryFieldOfEveryObject(t *testing.T) {
	for name, item := range map[string]string{
		"block": "- objectName: database/credentials-%04d.properties\n  secretKey: database-credentials-%04d.json\n" +
			"  field: production.databases.primary.password\n  encoding: base64\n  filePermission: \"0440\"\n",
		"flow": "- {objectName: database/credentials-%04d.properties, secretKey: database-credentials-%04d.json, " +
			"field: production.databases.primary.password, encoding: base64, filePermission: \"0440\"}\n",
	} {
		var b strings.Builder
		for i := range MaxObjects {
			fmt.Fprintf(&b, item, i, i)
		}
		c, errs := Parse(valid("objects", b.String()), nil, "/var/lib/kubelet")
		if len(c.Objects) != MaxObjects || len(errs) > 0 {
			t.Errorf("%s: %d objects, %v", name, len(c.Objects), errs)
		}
	}
}

// FuzzObjects verifies that the driver writes valid objects: no two files have the same path, and every path
// passes the driver's check.
func FuzzObjects(f *testing.F) {
	for _, seed := range []string{
		"- {objectName: a}", "- objectName: a/b\n  secretKey: x\n- objectName: a", "[]", "- *a",
		"- &a {objectName: *a}", "a: b",
		"- {objectName: ../x, secretKey: x}", "- {objectName: './x', secretKey: x, filePermission: '0888'}",
		"- {objectName: a, objectName: b}",
		"- {objectName: ..x, secretKey: x}", "- {? [a] : b}", "--- \n- {objectName: a}\n--- \n", "- !!binary aGk=",
		"- {objectName: a, field: 'b..c'}", "\t",
		"- {a: ,a: ,a: }", "[&a ,&a ]", "[[],[]]", "-\n-\n", "%TAG !a! x\n--- a",
		"- {objectName: " + strings.Repeat("a/", 40) + "a, secretKey: x}",
		"#\n- a\n#\n- b", "- {objectName: a, field: a.a.a.a.a.a.a.a.a.a}",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, errs := Parse(valid("objects", text), nil, "/var/lib/kubelet")
		if len(errs) > 0 {
			for _, err := range errs {
				if !strings.HasPrefix(err.Field, "objects") {
					t.Errorf("%v has no path", err)
				}
			}
			return
		}
		files := map[string]bool{}
		for _, o := range c.Objects {
			if files[o.Path] || o.Path == "." || CheckEntry(o.Entry) != nil || o.Mode&^0o777 != 0 {
				t.Errorf("object %+v", o)
			}
			files[o.Path] = true
			if err := fileutil.Validate([]*v1alpha1.File{{Path: o.Path}}); err != nil {
				t.Errorf("the driver rejects %q: %v", o.Path, err)
			}
		}
		for p := range maps.Keys(files) {
			for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
				if files[dir] {
					t.Errorf("%q is a file and a directory", dir)
				}
			}
		}
	})
}
