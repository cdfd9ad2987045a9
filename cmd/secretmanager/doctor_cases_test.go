package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/doctor"
	"github.com/secretmanager-io/secretmanager/test/relay"
)

// Roles of a jwt mount have other fields, and denied logins other messages.
func (c *doctorEnv) testJWT(t *testing.T) {
	_, err := c.vault.Write(t.Context(), "auth/jwt/config", map[string]any{"jwt_validation_pubkeys": c.issuerKeys(t)})
	check(t, err)
	defer restoreAuthMount(t, c)
	patchClass(`{"roleName":"demo-jwt"}`)(t, c)
	useAuthMount("jwt")(t, c)
	broken := func(check, detail string, env map[string]string) {
		t.Helper()
		v := c.doctor(t, env, "web-0")
		l := v.check(t, check)
		if !slices.Equal(v.in(doctor.Broken), []string{check}) || !strings.Contains(l.Detail, detail) || l.Advice == "" {
			t.Errorf("%s", v)
		}
	}
	noToken := map[string]string{"VAULT_TOKEN": ""}
	broken("role", "auth/jwt/role/demo-jwt does not exist", noToken)
	broken("role", "auth/jwt/role/demo-jwt does not exist", nil)
	setup := func() {
		t.Helper()
		c.sh(t, `secretmanager vault-setup --transit-key web -n demo --service-account web --role demo-jwt \
			--auth-mount jwt --apply`)
	}
	setup()
	bind := func(fields string) {
		t.Helper()
		c.sh(t, `vault write auth/jwt/role/demo-jwt role_type=jwt bound_claims_type=string `+fields)
	}
	bind(`bound_audiences=other`)
	broken("audience", "does not accept tokens for vault", noToken)
	broken("audience", "accepts tokens for other", nil)
	bind(`bound_subject=system:serviceaccount:demo:x`)
	broken("role", "does not accept service account demo/web", noToken)
	broken("role", "bound_subject is system:serviceaccount:demo:x", nil)
	c.vaultDelete(t, "auth/jwt/role/demo-jwt")
	setup()
	if v := c.doctor(t, nil, "web-0"); v.code != cli.ExitDone {
		t.Errorf("%s", v)
	}
	// Without the settings of the provider, only the class names the mount, unless the user does too.
	v := c.doctor(t, nil, "web-0", "--provider-namespace=elsewhere")
	if l := v.check(t, "auth-mount"); v.code != cli.ExitFailed || l.State != doctor.Unknown ||
		!strings.Contains(l.Advice, "--auth-mount") ||
		v.check(t, "policy").DependsOn != "auth-mount" {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
	v = c.doctor(t, nil, "web-0", "--provider-namespace=elsewhere", "--auth-mount=jwt")
	if l := v.check(t, "policy"); l.State != doctor.OK {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
}

// A policy that is broader than needed is a warning.
func (c *doctorEnv) testBroadPolicy(t *testing.T) {
	c.sh(t, `secretmanager vault-setup --transit-key shop -n demo --service-account nobody --apply
		secretmanager encrypt shop -n demo --transit-key shop --from-literal a=b
		vault write `+role+` token_policies=secretmanager-app-web,secretmanager-app-shop`)
	warned := func(want string) {
		t.Helper()
		v := c.doctor(t, nil, "web-0")
		if l := v.check(t, "policy"); v.code != cli.ExitDone || !strings.Contains(strings.Join(l.Warnings, ""), want) {
			t.Errorf("exit code %d, %+v", v.code, l)
		}
	}
	warned("the role may also decrypt with shop;")
	c.run(t, `path "transit/decrypt/*" { capabilities = ["update"] }`, "vault", "policy", "write", "wide", "-")
	c.sh(t, `vault write `+role+` token_policies=wide`)
	warned("the role may decrypt with any key of transit;")
	c.sh(t, `vault write `+role+` token_policies=secretmanager-app-web`)
}

func (c *doctorEnv) testFewRights(t *testing.T) {
	none := c.kubeconfigOf(t, "no-rights")
	none["VAULT_TOKEN"] = ""
	seen := func(v result, code int, unknown ...string) {
		t.Helper()
		if v.code != code || !slices.Equal(v.in(doctor.Unknown), unknown) || len(v.in(doctor.Broken)) > 0 {
			t.Errorf("exit code %d, unknown: %q\n%s", v.code, v.in(doctor.Unknown), v)
		}
	}
	installation := []string{"driver", "rotation", "csidriver", "provider", "token-requests", "socket-directory",
		"driver-nodes", "provider-nodes", "rotator", "version", "inline-auth", "rotator-run", "rotator-role", "retirement",
		"exporter", "references"}
	seen(c.doctor(t, none), cli.ExitFailed, append(slices.Clone(installation), "pods")...)
	v := c.doctor(t, none, "web-0")
	seen(v, cli.ExitFailed, append(slices.Clone(installation), "pod")...)
	if l := v.check(t, "pod"); !strings.Contains(l.Detail, "you may not get pods -n demo") ||
		!strings.Contains(l.Advice, "kubectl auth can-i get pods -n demo") {
		t.Errorf("%+v", l)
	}
	v = c.doctor(t, none, "--class", "web")
	if v.code != cli.ExitFailed || len(v.in(doctor.Broken)) > 0 || v.check(t, "role").DependsOn != "class" {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
	delete(none, "VAULT_TOKEN")
	none["VAULT_ADDR"] = ""
	if v := c.doctor(t, none); v.check(t, "vault").State != doctor.Unknown ||
		v.check(t, "vault-seal").DependsOn != "vault" {
		t.Errorf("%s", v)
	}

	// A user who may create tokens of the service account needs no rights in Vault.
	c.sh(t, `
		kubectl -n demo create role half --verb=get --resource=pods,serviceaccounts,secrets
		kubectl -n demo create role half-driver --verb=get \
			--resource=secretproviderclasses.secrets-store.csi.x-k8s.io \
			--resource=secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io
		kubectl -n demo create rolebinding half-driver --role=half-driver --serviceaccount=demo:nobody
		kubectl -n demo create role token --verb=create --resource=serviceaccounts/token
		kubectl -n demo create rolebinding half --role=half --serviceaccount=demo:nobody
		kubectl -n demo create rolebinding token --role=token --serviceaccount=demo:nobody`)
	half := c.kubeconfigOf(t, "nobody")
	half["VAULT_TOKEN"] = ""
	seen(c.doctor(t, half, "web-0"), cli.ExitFailed, append(slices.Clone(installation), "decrypts")...)
	seen(c.doctor(t, half, "web-0", "--login=false"), cli.ExitFailed,
		append(slices.Clone(installation), "role", "audience", "login", "policy", "key", "decrypts")...)
	// The user cannot read which addresses the provider allows.
	patchClass(`{"vaultAddress":"`+c.vault.Address+`"}`)(t, c)
	seen(c.doctor(t, half, "web-0"), cli.ExitFailed, append(slices.Clone(installation), "decrypts")...)
	restoreClass(t, c)
	c.sh(t, `kubectl -n demo delete rolebinding token`)
	v = c.doctor(t, half, "web-0")
	seen(v, cli.ExitFailed, append(slices.Clone(installation), "role", "audience", "login", "policy", "key",
		"decrypts")...)
	if l := v.check(t, "login"); l.Detail != "you may not create serviceaccounts --subresource=token -n demo" {
		t.Errorf("%+v", l)
	}
	c.sh(t, `kubectl -n demo create rolebinding token --role=token --serviceaccount=demo:nobody`)
	found := func(check, detail string) {
		t.Helper()
		v := c.doctor(t, half, "web-0")
		if got := v.in(doctor.Broken); !slices.Equal(got, []string{check}) ||
			!strings.Contains(v.check(t, check).Detail, detail) || v.code != cli.ExitToDo {
			t.Errorf("exit code %d\n%s", v.code, v)
		}
	}
	c.sh(t, `vault write `+role+` bound_service_account_names=x`)
	found("role", "service account name not authorized")
	c.sh(t, `vault write `+role+` bound_service_account_names=web audience=other`)
	found("audience", "does not accept tokens for vault")
	c.sh(t, `vault write `+role+` audience=vault token_policies=none`)
	found("policy", "grants update on")
	c.sh(t, `vault write `+role+` token_policies=secretmanager-app-web`)
	newKey(false)(t, c)
	found("key", "is not derived")
	newKey(true)(t, c)
	found("key", "transit/keys/web does not exist")
	restoreSecret(t, c)
	patchClass(`{"roleName":"gone"}`)(t, c)
	found("role", "auth/kubernetes/role/gone does not exist")
	// A login without a valid token reports that the role does not exist.
	if v := c.doctor(t, half, "web-0", "--login=false"); !slices.Equal(v.in(doctor.Broken), []string{"role"}) {
		t.Errorf("%s", v)
	}
	restoreClass(t, c)

	// An expired token.
	if v := c.doctor(t, map[string]string{"VAULT_TOKEN": "hvs.ended"}, "web-0"); v.code != cli.ExitFailed ||
		!slices.Equal(v.in(doctor.Unknown), []string{"rotator-role", "decrypts"}) {
		t.Errorf("exit code %d\n%s", v.code, v)
	}
	for name, config := range map[string]string{"no file": "/nowhere/kubeconfig", "nobody there": c.server.Kubeconfig} {
		args := []string{"web-0"}
		if name == "nobody there" {
			args = append(args, "--context=nowhere")
		}
		if v := c.doctor(t, map[string]string{"KUBECONFIG": config}, args...); v.code != cli.ExitFailed ||
			v.check(t, "cluster").State != doctor.Broken ||
			v.check(t, "driver").DependsOn != "cluster" || v.check(t, "vault").State != doctor.OK {
			t.Errorf("%s: exit code %d\n%s", name, v.code, v)
		}
	}
}

// doctor sends nothing over plain HTTP outside the loopback interface without
// --vault-insecure-http, and reports a provider that does.
func (c *doctorEnv) testPlainHTTP(t *testing.T) {
	plain := strings.Replace(c.vault.Address, "127.0.0.1", "0.0.0.0", 1)
	v := c.doctor(t, map[string]string{"VAULT_ADDR": plain}, "web-0")
	if l := v.check(t, "vault"); v.code != cli.ExitFailed || l.State != doctor.Unknown ||
		!strings.Contains(l.Detail, "plain HTTP") || v.check(t, "decrypts").DependsOn != "vault" {
		t.Errorf("not accepted: %s", v)
	}
	for name, accept := range map[string]func() result{
		"flag": func() result {
			return c.doctor(t, map[string]string{"VAULT_ADDR": plain}, "web-0", "--vault-insecure-http")
		},
		"environment": func() result {
			return c.doctor(t, map[string]string{"VAULT_ADDR": plain, "SECRETMANAGER_VAULT_INSECURE_HTTP": "true"}, "web-0")
		},
	} {
		v := accept()
		if l := v.check(t, "vault"); v.code != cli.ExitDone ||
			!strings.Contains(strings.Join(l.Warnings, ""), "plain HTTP to "+plain) {
			t.Errorf("%s: %s", name, v)
		}
	}
	c.setVaultAddress(t, plain)
	defer c.setVaultAddress(t, c.vault.Address)
	v = c.doctor(t, nil, "web-0")
	if l := v.check(t, "provider"); l.State != doctor.Broken || !strings.Contains(l.Detail, "does not start with "+plain) {
		t.Errorf("the provider refuses: %s", v)
	}
	c.sh(t, `kubectl -n secretmanager-system set env daemonset/secretmanager-provider -c provider \
		SECRETMANAGER_VAULT_INSECURE_HTTP=true`)
	v = c.doctor(t, nil, "web-0")
	if l := v.check(t, "provider"); l.State != doctor.OK ||
		!strings.Contains(strings.Join(l.Warnings, ""), "plain HTTP to "+plain) {
		t.Errorf("the provider accepts: %s", v)
	}
	c.sh(t, `kubectl -n secretmanager-system set env daemonset/secretmanager-provider -c provider \
		SECRETMANAGER_VAULT_INSECURE_HTTP-`)
}

// A Vault that accepts connections and does not respond costs one timeout, not one per check.
func (c *doctorEnv) testUnresponsiveVault(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	for name, address := range map[string]string{"silent": silent.Addr().String(), "closed": "127.0.0.1:1"} {
		began := time.Now()
		v := c.doctor(t, map[string]string{"VAULT_ADDR": "http://" + address}, "web-0")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		if !slices.Equal(v.in(doctor.Broken), []string{"vault"}) || v.check(t, "decrypts").DependsOn != "vault" ||
			v.check(t, "secret").State != doctor.OK {
			t.Errorf("%s: %s", name, v)
		}
	}
	// Of a cluster, a server that responds is used, and the others are named.
	v := c.doctor(t, map[string]string{"VAULT_ADDR": "http://127.0.0.1:1," + c.vault.Address}, "web-0")
	if l := v.check(t, "vault"); l.State != doctor.OK ||
		!strings.Contains(strings.Join(l.Warnings, ""), "http://127.0.0.1:1 cannot be used: ") ||
		v.check(t, "decrypts").State != doctor.OK || len(v.check(t, "class").Warnings) != 0 {
		t.Errorf("cluster: %s", v)
	}
	// The provider's address of Vault is not used.
	v = c.doctor(t, map[string]string{"VAULT_ADDR": ""}, "web-0")
	if l := v.check(t, "vault"); v.code != cli.ExitFailed || l.State != doctor.Unknown ||
		!strings.Contains(l.Detail, "VAULT_ADDR is not set") || v.check(t, "decrypts").DependsOn != "vault" {
		t.Errorf("%s", v)
	}
	// Secrets, which may have the provider's address of Vault, are not read.
	for _, from := range []string{`"envFrom":[{"secretRef":{"name":"where"}}]`,
		`"env":[{"name":"VAULT_ADDR","valueFrom":{"secretKeyRef":{"name":"where","key":"a"}}}]`} {
		c.setVaultAddress(t, "")
		c.patchProvider(t, "--type=strategic", `{"spec":{"template":{"spec":{"containers":[{"name":"provider",`+from+`}]}}}}`)
		v := c.doctor(t, map[string]string{"VAULT_ADDR": ""})
		if l := v.check(t, "provider"); l.State != doctor.OK ||
			!strings.Contains(strings.Join(l.Warnings, ""), "could not be read: it may be in Secret where") ||
			v.check(t, "vault").State != doctor.Unknown {
			t.Errorf("%s: %s", from, v)
		}
		c.sh(t, `kubectl -n secretmanager-system set env daemonset/secretmanager-provider -c provider VAULT_ADDR-
			kubectl apply -k "$ROOT/manifests"`)
	}
	c.setVaultAddress(t, c.vault.Address)
	if v := c.doctor(t, map[string]string{"VAULT_ADDR": "http://127.0.0.1:1"}, "web-0", "--vault-addr",
		c.vault.Address); v.code != cli.ExitDone {
		t.Errorf("--vault-addr: exit code %d\n%s", v.code, v)
	}
	page := httptest.NewServer(
		http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>eyJ") }))
	defer page.Close()
	if v := c.doctor(t, map[string]string{"VAULT_ADDR": page.URL},
		"web-0"); !strings.Contains(v.check(t, "vault").Detail, "is not Vault") {
		t.Errorf("%s", v)
	}
}

// Anyone with a namespace can create a DaemonSet that looks like the provider.
func (c *doctorEnv) testProviderElsewhere(t *testing.T) {
	c.sh(t, `kubectl -n secretmanager-system get ds secretmanager-provider -o json >"$HOME/ds.json"
		sed -e 's/"namespace": "secretmanager-system"/"namespace": "demo"/' -e 's/"secretmanager-provider"/"zzz"/' \
			-e 's/"app.kubernetes.io\/name": "zzz"/"app.kubernetes.io\/name": "secretmanager-provider"/' \
			"$HOME/ds.json" | kubectl -n demo create -f -`)
	defer c.sh(t, `kubectl -n demo delete ds zzz`)
	if v := c.doctor(t, nil, "web-0"); v.code != cli.ExitDone ||
		!strings.Contains(v.check(t, "provider").Detail, "DaemonSet secretmanager-system/") {
		t.Errorf("beside the provider: %s", v)
	}
	v := c.doctor(t, nil, "web-0", "--provider-namespace", "elsewhere")
	if l := v.check(t, "provider"); l.State != doctor.Unknown ||
		!strings.Contains(l.Detail, "is not in namespace elsewhere") || len(v.in(doctor.Broken)) > 0 {
		t.Errorf("without the provider: %s", v)
	}
}

// testClock uses a proxy that changes the time that Vault reports.
func (c *doctorEnv) testClock(t *testing.T) {
	var shift atomic.Int64 // a duration
	var refuse, logins atomic.Int32
	vault, err := relay.New(c.vault.Address, nil)
	if err != nil {
		t.Fatal(err)
	}
	vault.ModifyResponse = func(answer *http.Response) error {
		if !strings.HasSuffix(answer.Request.URL.Path, "/health") {
			return nil
		}
		var health map[string]any
		if err := json.NewDecoder(answer.Body).Decode(&health); err != nil {
			return err
		}
		health["server_time_utc"] = time.Now().Add(time.Duration(shift.Load())).Unix()
		text, err := json.Marshal(health)
		answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
		answer.Header.Del("Content-Length")
		return err
	}
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse := int(refuse.Load()); refuse > 0 && strings.HasSuffix(r.URL.Path, "/login") {
			logins.Add(1)
			http.Error(w, `{"errors":["permission denied"]}`, refuse)
			return
		}
		vault.ServeHTTP(w, r)
	}))
	defer between.Close()
	env := map[string]string{"VAULT_ADDR": between.URL}
	shift.Store(int64(5 * time.Second))
	if v := c.doctor(t, env, "web-0"); v.code != cli.ExitDone {
		t.Errorf("%s: %s", time.Duration(shift.Load()), v)
	}
	apart := func(want string) result {
		t.Helper()
		v := c.doctor(t, env, "web-0")
		if !slices.Equal(v.in(doctor.Broken), []string{"vault-clock"}) ||
			!strings.Contains(v.check(t, "vault-clock").Detail, want) {
			t.Errorf("%s: %s", time.Duration(shift.Load()), v)
		}
		return v
	}
	shift.Store(-int64(5 * time.Minute))
	apart("behind ours")
	shift.Store(int64(5 * time.Minute))
	if v := apart("ahead of ours"); v.check(t, "login").State != doctor.OK {
		t.Errorf("%s", v)
	}
	// A wrong clock may be the reason for a denied login.
	for _, status := range []int32{http.StatusForbidden, http.StatusInternalServerError} {
		refuse.Store(status)
		logins.Store(0)
		if v := apart("ahead of ours"); v.check(t, "login").DependsOn != "vault-clock" ||
			v.check(t, "policy").DependsOn != "vault-clock" {
			t.Errorf("%s", v)
		}
		// One for the mount and one for the service account: they are not retried.
		if n := logins.Load(); n != 2 {
			t.Errorf("HTTP %d: %d logins", status, n)
		}
	}
}
