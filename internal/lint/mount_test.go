package lint

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/secretmanager-io/secretmanager/internal/class"
	"github.com/secretmanager-io/secretmanager/internal/manifest"
)

// cluster is what a test applies, by namespace and name.
type cluster struct {
	secrets map[string]*storedSecret
	classes map[string]map[string]string
	pods    []*pod
	files   map[string]string
}

type storedSecret struct {
	name, key, scope string
	entries          []string
}

type pod struct {
	kind, name, namespace string
	class, secret         string // secret is nodePublishSecretRef
	readOnly              bool
	attributes            map[string]string
}

// mounts reports whether the API server, the kubelet, the driver, the provider and Vault would mount the volume.
func (c *cluster) mounts(p *pod) bool {
	parameters, found := c.classes[p.namespace+"/"+p.class]
	if !found || !p.readOnly {
		return false
	}
	parameters = maps.Clone(parameters)
	maps.Copy(parameters, p.attributes)
	parsed, errs := class.Parse(parameters, nil, "/target")
	if len(errs) > 0 {
		return false
	}
	delivered := p.secret
	if delivered == "" {
		delivered = parsed.Secret
	}
	s := c.secrets[p.namespace+"/"+delivered]
	if s == nil {
		return false
	}
	decrypts := s.key == parsed.Key.Name && s.scope == string(parsed.Scope) &&
		(s.scope != "strict" || s.name == parsed.Secret)
	missing := func(entry string) bool { return !slices.Contains(s.entries, entry) }
	return decrypts && !slices.ContainsFunc(parsed.Entries(), missing)
}

// isOurs reports whether the objects show that a volume is one of this provider: another one could have its class.
func (c *cluster) isOurs(p *pod) bool {
	for name := range c.classes {
		if strings.HasPrefix(name, p.namespace+"/") {
			return true
		}
	}
	return c.secrets[p.namespace+"/"+p.secret] != nil
}

func yamlOf(t *rapid.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// drawCluster draws objects that often fit together.
func drawCluster(t *rapid.T) *cluster {
	c := &cluster{secrets: map[string]*storedSecret{}, classes: map[string]map[string]string{}, files: map[string]string{}}
	// The first of a list is drawn more often.
	pick := func(what string, values ...string) string {
		if rapid.IntRange(0, 2).Draw(t, "usual "+what) > 0 {
			return values[0]
		}
		return rapid.SampledFrom(values).Draw(t, what)
	}
	type m = map[string]any
	for i, namespace := range []string{"one", "two"} {
		for j, name := range []string{"s", "t"} {
			if pick("Secret", "yes", "no") == "no" {
				continue
			}
			s := &storedSecret{name, pick("key", "k", "l"), pick("scope", "strict", "none"), []string{"x"}}
			if pick("entries", "both", "one") == "both" {
				s.entries = append(s.entries, "y")
			}
			data := m{}
			for n, entry := range s.entries {
				ciphertext := "vault:v1:" + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%040d", 100*i+10*j+n))
				data[entry] = base64.StdEncoding.EncodeToString([]byte(ciphertext))
			}
			c.secrets[namespace+"/"+name] = s
			c.files["secret-"+namespace+name+".yaml"] = yamlOf(t, m{"apiVersion": "v1", "kind": "Secret",
				"type": "secretmanager.io/ciphertext", "data": data, "metadata": m{"name": name, "namespace": namespace,
					"labels":      m{"secretmanager.io/transit-key": s.key},
					"annotations": m{"secretmanager.io/scope": s.scope}}})
		}
		for _, name := range []string{"c", "d"} {
			if pick("class", "yes", "no") == "no" {
				continue
			}
			parameters := map[string]string{"roleName": "r", "secretName": pick("secretName", "s", "t", "u", ""),
				"transitKey": pick("transitKey", "k", "l"), "scope": pick("scope", "", "strict", "none"),
				"objects": pick("objects", "", "- objectName: x", "- objectName: y", "- objectName: z", "- x")}
			c.classes[namespace+"/"+name] = parameters
			c.files["class-"+namespace+name+".yaml"] = yamlOf(t, m{"apiVersion": "secrets-store.csi.x-k8s.io/v1",
				"kind": "SecretProviderClass", "metadata": m{"name": name, "namespace": namespace},
				"spec": m{"provider": "secretmanager", "parameters": parameters}})
		}
	}
	kinds := []string{"Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "PodTemplate",
		"ReplicationController"}
	for i := range rapid.IntRange(1, 5).Draw(t, "pods") {
		p := &pod{kind: rapid.SampledFrom(kinds).Draw(t, "kind"), name: fmt.Sprint("pod", i),
			namespace: pick("namespace", "one", "two"), class: pick("its class", "c", "d", "e"),
			secret: pick("its Secret", "s", "", "t", "u"), readOnly: pick("readOnly", "yes", "no") == "yes",
			attributes: map[string]string{}}
		switch pick("attribute", "none", "none", "secretName", "transitKey", "objects", "scope", "nosuch") {
		case "secretName":
			p.attributes["secretName"] = pick("its secretName", "s", "t", "u")
		case "transitKey":
			p.attributes["transitKey"] = pick("its transitKey", "k", "l", "")
		case "objects":
			p.attributes["objects"] = pick("its objects", "- objectName: x", "- objectName: y", "- objectName: z")
		case "scope":
			p.attributes["scope"] = pick("its scope", "none", "strict", "x")
		case "nosuch":
			p.attributes["nosuch"] = "x"
		}
		c.pods = append(c.pods, p)
		attributes := map[string]string{"secretProviderClass": p.class}
		maps.Copy(attributes, p.attributes)
		csi := m{"driver": "secrets-store.csi.k8s.io", "readOnly": p.readOnly, "volumeAttributes": attributes}
		if p.secret != "" {
			csi["nodePublishSecretRef"] = m{"name": p.secret}
		}
		spec := yamlOf(t, m{"volumes": []m{{"name": "v", "csi": csi}}}) + "\n"
		c.files[p.name+".yaml"] = strings.Replace(inKind(p.kind, spec), "name: app, namespace: demo",
			"name: "+p.name+", namespace: "+p.namespace, 1)
	}
	return c
}

// check returns the findings about the chosen files, by kind, namespace and name.
func (c *cluster) check(t *rapid.T, chosen func(name string) bool) map[string][]Finding {
	var files []*File
	for _, name := range slices.Sorted(maps.Keys(c.files)) {
		if !chosen(name) {
			continue
		}
		m, err := manifest.Parse([]byte(c.files[name]))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, Read(name, m))
	}
	found := map[string][]Finding{}
	for _, f := range Check(files, Options{}) {
		of := f.Kind + " " + f.Namespace + "/" + f.Name
		found[of] = append(found[of], f)
	}
	return found
}

func hasError(findings []Finding) bool {
	return slices.ContainsFunc(findings, func(f Finding) bool { return f.Severity == Error })
}

// TestMounts compares the findings about random objects with whether the volumes can be mounted. Among all files, every
// volume that cannot be mounted has a finding. Among all files or some, no error is about what can be mounted.
func TestMounts(t *testing.T) {
	mounted, failed, partly := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		c := drawCluster(t)
		all := c.check(t, func(string) bool { return true })
		for _, p := range c.pods {
			of, classOf := p.kind+" "+p.namespace+"/"+p.name, "SecretProviderClass "+p.namespace+"/"+p.class
			if c.mounts(p) {
				mounted++
				if hasError(all[of]) {
					t.Errorf("%s can be mounted: %v\n%v", of, all[of], c.files)
				}
				continue
			}
			if !c.isOurs(p) {
				continue
			}
			failed++
			if len(all[of])+len(all[classOf]) == 0 {
				t.Errorf("%s cannot be mounted, and there is no finding\n%v", of, c.files)
			}
		}
		some := c.check(t, func(name string) bool { return rapid.Bool().Draw(t, "with "+name) })
		for of, findings := range some {
			if !hasError(findings) {
				continue
			}
			partly++
			for _, p := range c.pods {
				if of == p.kind+" "+p.namespace+"/"+p.name && c.mounts(p) {
					t.Errorf("%s can be mounted: %v\n%v", of, findings, c.files)
				}
			}
		}
		// A class by itself, and with its volumes.
		for name, parameters := range c.classes {
			of := "SecretProviderClass " + name
			namespace, class, _ := strings.Cut(name, "/")
			users := slices.DeleteFunc(slices.Clone(c.pods),
				func(p *pod) bool { return p.namespace != namespace || p.class != class })
			fails := slices.ContainsFunc(users, func(p *pod) bool { return !c.mounts(p) })
			if len(users) > 0 && !fails && hasError(all[of]) {
				t.Errorf("all volumes of %s can be mounted: %v\n%v", of, all[of], c.files)
			}
			alone := &pod{namespace: namespace, class: class, secret: parameters["secretName"], readOnly: true}
			if c.mounts(alone) && (hasError(all[of]) || hasError(some[of])) {
				t.Errorf("%s can be mounted: %v, %v\n%v", of, all[of], some[of], c.files)
			}
		}
	})
	if mounted < 20 || failed < 20 || partly < 20 {
		t.Errorf("only %d that can be mounted, %d that cannot, %d errors among some files", mounted, failed, partly)
	}
}
