// Command decrypt shows how a program reads its secrets in-process: without volumes and
// files, with the plaintext only in its memory. It runs in a pod, reads the ciphertext
// Secret from the API server and decrypts it with Vault, both as the pod's service account.
//
// In the cluster it needs a role that may get that Secret:
//
//	kind: Role
//	rules:
//	- {apiGroups: [""], resources: [secrets], resourceNames: [matrix-secrets], verbs: [get]}
//
// in Vault a policy and a role of the kubernetes auth method:
//
//	path "transit/decrypt/matrix" { capabilities = ["update"] }
//
//	vault write auth/kubernetes/role/matrix token_type=batch token_policies=matrix audience=vault \
//	    bound_service_account_names=matrix bound_service_account_namespaces=demo
//
// and in the pod a token for Vault's audience:
//
//	volumes:
//	- name: vault
//	  projected: {sources: [{serviceAccountToken: {audience: vault, path: token}}]}
//
// Then:
//
//	decrypt --vault-addr=https://vault:8200 --vault-role=matrix --vault-token-file=/var/run/vault/token matrix-secrets
//
// It prints the names and lengths of the entries. Replace that by your own use of the
// values.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/secretmanager-io/secretmanager"
	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/transit"
)

// namespaceFile has the namespace of the pod.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

type options struct {
	namespace, secret, kubeconfig string
	vault                         transit.Config
	authMount, role, tokenFile    string
	showValues                    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := options{vault: transit.FromEnvironment(os.Getenv)}
	flag.StringVar(&o.namespace, "namespace", "", "namespace of the Secret (default: the pod's own)")
	flag.StringVar(&o.kubeconfig, "kubeconfig", "", "kubeconfig file (default: the cluster that this runs in)")
	flag.StringVar(&o.vault.Address, "vault-addr", o.vault.Address, "URL of Vault (VAULT_ADDR)")
	flag.BoolVar(&o.vault.InsecureHTTP, "vault-insecure-http", o.vault.InsecureHTTP,
		"accept an http URL outside the loopback interface ("+transit.EnvInsecureHTTP+")")
	flag.StringVar(&o.authMount, "vault-auth-mount", "kubernetes", "path of the auth mount")
	flag.StringVar(&o.role, "vault-role", "", "role to log in as")
	flag.StringVar(&o.tokenFile, "vault-token-file", "/var/run/vault/token",
		"file of the service-account token to log in with")
	flag.BoolVar(&o.showValues, "show-values", false, "print the plaintext too, for trying out")
	flag.Parse()
	o.secret = flag.Arg(0)
	if flag.NArg() != 1 || o.role == "" {
		fmt.Fprintln(os.Stderr, "usage: decrypt --vault-role=ROLE [flags] SECRET")
		flag.PrintDefaults()
		os.Exit(2)
	}
	if err := run(ctx, o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "decrypt:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if o.namespace == "" {
		text, err := os.ReadFile(namespaceFile)
		if err != nil {
			return fmt.Errorf("finding the namespace: %w: outside of a pod, set --namespace", err)
		}
		o.namespace = strings.TrimSpace(string(text))
	}
	vault, err := transit.NewClient(o.vault)
	if err != nil {
		return err
	}
	// The source logs in when it has no token, and again when the token expires. Keep the
	// session in a program that runs longer.
	session := vault.Session("", vault.NewLoginSource(transit.Login{
		Mount: o.authMount, Role: o.role,
		JWT: func() (string, error) {
			text, err := os.ReadFile(o.tokenFile) // read it for each login: the kubelet renews it
			return strings.TrimSpace(string(text)), err
		},
	}))
	kube, err := clientset(o.kubeconfig)
	if err != nil {
		return err
	}
	values, err := secretmanager.New(session, kube).Read(ctx, o.namespace, o.secret)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range ciphertext.Entries(values) {
		line := fmt.Sprintf("%s\t%d bytes", entry, len(values[entry]))
		if o.showValues {
			line += fmt.Sprintf("\t%q", values[entry])
		}
		_, err := fmt.Fprintln(out, line)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func clientset(kubeconfig string) (kubernetes.Interface, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the Kubernetes API server: %w: outside of a cluster, set --kubeconfig", err)
	}
	return kubernetes.NewForConfig(config)
}
