package vaultsetup

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/secretmanager-io/secretmanager/ciphertext"
)

// terraform returns the blocks of the setup by type and labels, as Terraform parses them.
func terraform(t *testing.T, s Setup) map[string]hcl.Attributes {
	t.Helper()
	var text bytes.Buffer
	if err := s.WriteTerraform(&text); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(hclwrite.Format(text.Bytes())), text.String()); diff != "" {
		t.Errorf("terraform fmt changes the output, -want +got:\n%s", diff)
	}
	file, problems := hclsyntax.ParseConfig(text.Bytes(), "setup.tf", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatalf("%v in:\n%s", problems, text.String())
	}
	blocks := map[string]hcl.Attributes{}
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		name := fmt.Sprintf("%s %q", b.Type, b.Labels)
		if _, duplicate := blocks[name]; duplicate {
			t.Errorf("duplicate block %s", name)
		}
		blocks[name] = hcl.Attributes{}
		for _, a := range b.Body.Attributes {
			blocks[name][a.Name] = a.AsHCLAttribute()
		}
	}
	return blocks
}

// value returns the value of an attribute, with the given variables.
func value(t *testing.T, a *hcl.Attribute, refers map[string]cty.Value) cty.Value {
	t.Helper()
	if a == nil {
		t.Fatal("attribute is missing")
	}
	v, problems := a.Expr.Value(&hcl.EvalContext{Variables: refers})
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return v
}

func TestTerraform(t *testing.T) {
	for _, authType := range []string{AuthKubernetes, AuthJWT} {
		for _, perNamespace := range []bool{false, true} {
			t.Run(fmt.Sprint(authType, perNamespace), func(t *testing.T) {
				s := example()
				s.AuthMount, s.AuthType, s.Audience = authType+"/1.prod", authType, `https://"${x}%{y}`
				if perNamespace {
					s.PerNamespace, s.Accessor = true, AccessorPlaceholder
					s.Key = ciphertext.Key{Mount: NamespacesMount(s.AuthMount), Name: s.App.Account.Namespace}
				}
				if err := s.Check(); err != nil {
					t.Fatal(err)
				}
				role := "vault_" + authType + "_auth_backend_role"
				blocks := terraform(t, s)
				want := []string{
					fmt.Sprintf("resource [%q %q]", role, "ci-deployer"),
					fmt.Sprintf("resource [%q %q]", role, "demo-matrix"),
					fmt.Sprintf("resource [%q %q]", role, "secretmanager-rotator"),
					fmt.Sprintf(`resource ["vault_mount" %q]`, label(s.Key.Mount)),
					fmt.Sprintf(`resource ["vault_transit_secret_backend_key" %q]`, s.Key.Name),
				}
				named := map[string]cty.Value{}
				refers := map[string]cty.Value{}
				for _, p := range s.Policies() {
					want = append(want, fmt.Sprintf(`resource ["vault_policy" %q]`, label(p.Name)))
					named[label(p.Name)] = cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(p.Name)})
				}
				refers["vault_policy"] = cty.ObjectVal(named)
				if perNamespace {
					want = append(want, fmt.Sprintf(`data ["vault_auth_backend" %q]`, label(s.AuthMount)))
					s.Accessor = "auth_x_1"
					refers["data"] = cty.ObjectVal(map[string]cty.Value{"vault_auth_backend": cty.ObjectVal(map[string]cty.Value{
						label(s.AuthMount): cty.ObjectVal(map[string]cty.Value{"accessor": cty.StringVal("auth_x_1")})})})
				}
				slices.Sort(want)
				if diff := cmp.Diff(want, slices.Sorted(maps.Keys(blocks))); diff != "" {
					t.Fatalf("blocks, -want +got:\n%s", diff)
				}
				for _, p := range s.Policies() {
					if got := value(t, blocks[fmt.Sprintf(`resource ["vault_policy" %q]`, label(p.Name))]["policy"],
						refers).AsString(); got != p.HCL() {
						t.Errorf("policy %s, -want +got:\n%s", p.Name, cmp.Diff(p.HCL(), got))
					}
				}
				rotator := blocks[fmt.Sprintf("resource [%q %q]", role, "secretmanager-rotator")]
				if got := value(t, rotator["token_ttl"], nil); !got.RawEquals(cty.NumberIntVal(900)) {
					t.Errorf("token_ttl is %#v", got)
				}
				if got := value(t, rotator["token_policies"], refers); got.LengthInt() != 3 {
					t.Errorf("token_policies are %#v", got)
				}
				audience := value(t,
					rotator[map[string]string{AuthKubernetes: "audience", AuthJWT: "bound_audiences"}[authType]], nil)
				if authType == AuthJWT {
					audience = audience.Index(cty.NumberIntVal(0))
				}
				if audience.AsString() != s.Audience {
					t.Errorf("the audience is %q", audience.AsString())
				}
				if key := blocks[fmt.Sprintf(`resource ["vault_transit_secret_backend_key" %q]`, s.Key.Name)]; !value(t,
					key["derived"], nil).True() {
					t.Error("the key is not derived")
				}
			})
		}
	}
}
