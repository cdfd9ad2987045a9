// Package version is the verb version: it prints the versions of this program and of what runs in the cluster.
package version

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/secretmanager-io/secretmanager/internal/cli"
	"github.com/secretmanager-io/secretmanager/internal/display"
	"github.com/secretmanager-io/secretmanager/internal/version"
	"github.com/secretmanager-io/secretmanager/rotator"
)

// timeout bounds the wait for the cluster, which is not what the user asks for first.
const timeout = 5 * time.Second

// Options are the options of version.
type Options struct {
	*cli.Factory
	client bool
	output string
}

// NewCommand returns the command version.
func NewCommand(p *cli.Factory) *cobra.Command {
	o := &Options{Factory: p}
	c := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program, the provider and the rotator",
		Long: `Print the version of this program, the commit that it was built from, and the version
of Go. If there is a cluster and you may read them there, print the images of the
provider's DaemonSets and of the rotator's CronJobs too: in all namespaces, or if you
may not list these, in secretmanager-system. Without the right, or without a cluster,
standard error says what is missing, and the exit code is 0.`,
		Example: `  secretmanager version
  secretmanager version --client -o json`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(o),
	}
	c.Flags().BoolVar(&o.client, "client", false, "only the version of this program, without a request to the cluster")
	cli.OutputFlag(c, &o.output, "json", "yaml")
	return c
}

// Complete implements cli.Options.
func (o *Options) Complete(*cobra.Command, []string) error { return nil }

// Validate implements cli.Options.
func (o *Options) Validate() error { return cli.ValidateOutput(o.output, "json", "yaml") }

// document is what version prints as JSON and YAML. It is stable: fields are added and never renamed.
type document struct {
	Client   build     `json:"client"`
	Provider []running `json:"provider,omitempty"`
	Rotator  []running `json:"rotator,omitempty"`
}

// build is what this program was built from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// running is a workload of the cluster.
type running struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Image     string `json:"image"`
}

// Run implements cli.Options.
func (o *Options) Run(ctx context.Context) error {
	d := document{Client: build{version.Number(), version.Commit(), runtime.Version(),
		runtime.GOOS + "/" + runtime.GOARCH}}
	if !o.client {
		if err := o.addCluster(ctx, &d); err != nil {
			display.Fprintf(o.ErrOut, "note: the versions in the cluster cannot be read: %s\n", err)
		}
	}
	if o.output != "" {
		return o.PrintDocument(d, o.output)
	}
	display.Fprintf(o.Out, "client:    %s (commit %s, %s, %s)\n", d.Client.Version, d.Client.Commit, d.Client.Go,
		d.Client.Platform)
	for _, component := range []struct {
		name string
		all  []running
	}{{"provider:", d.Provider}, {"rotator:", d.Rotator}} {
		for _, r := range component.all {
			display.Fprintf(o.Out, "%-9s  %s (%s/%s)\n", component.name, r.Image, r.Namespace, r.Name)
		}
	}
	return nil
}

// addCluster adds what runs in the cluster.
func (o *Options) addCluster(ctx context.Context, d *document) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	kube, err := o.KubeClient()
	if err != nil {
		return err
	}
	namespace := metav1.NamespaceAll
	err = d.read(ctx, kube, namespace)
	if apierrors.IsForbidden(err) {
		err = d.read(ctx, kube, rotator.DefaultStateNamespace)
	}
	if err == nil && len(d.Provider)+len(d.Rotator) == 0 {
		display.Fprintf(o.ErrOut, "note: neither provider nor rotator is installed in %s\n", o.Cluster())
	}
	return err
}

// read reads the images of the workloads in a namespace, or in all.
func (d *document) read(ctx context.Context, kube kubernetes.Interface, namespace string) error {
	of := func(component string) metav1.ListOptions {
		return metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=secretmanager-" + component}
	}
	daemonSets, err := kube.AppsV1().DaemonSets(namespace).List(ctx, of("provider"))
	if err != nil {
		return err
	}
	cronJobs, err := kube.BatchV1().CronJobs(namespace).List(ctx, of("rotator"))
	if err != nil {
		return err
	}
	for i := range daemonSets.Items {
		s := &daemonSets.Items[i]
		d.Provider = append(d.Provider, runningOf(s, s.Spec.Template.Spec))
	}
	for i := range cronJobs.Items {
		j := &cronJobs.Items[i]
		d.Rotator = append(d.Rotator, runningOf(j, j.Spec.JobTemplate.Spec.Template.Spec))
	}
	return nil
}

func runningOf(o metav1.Object, pod corev1.PodSpec) running {
	i := max(slices.IndexFunc(pod.Containers, func(c corev1.Container) bool {
		return strings.Contains(c.Name, "provider") || strings.Contains(c.Name, "rotator")
	}), 0)
	r := running{Namespace: o.GetNamespace(), Name: o.GetName()}
	if len(pod.Containers) > 0 {
		r.Image = pod.Containers[i].Image
	}
	return r
}
