// A loop that syncs manifests as Argo CD's application controller does: with Argo CD's own code for the comparison, for ignoreDifferences and
// for the sync itself. Git is a folder, and there is no Application object in the cluster: the Application is a file.
//
// Usage: argo-sync APPLICATION FOLDER SECONDS. Each sync prints the resources that it applied.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/argo/normalizers"
	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/argoproj/gitops-engine/pkg/sync"
	"github.com/argoproj/gitops-engine/pkg/sync/common"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/gitops-engine/pkg/utils/tracing"
	jsonpatch "github.com/evanphx/json-patch"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// The field manager of Argo CD.
const manager = "argocd-controller"

func main() {
	seconds, err := strconv.Atoi(os.Args[3])
	check(err)
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	check(err)
	kubectl := &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}}
	_, parser, err := kubectl.LoadOpenAPISchema(config)
	check(err)
	for {
		round(config, kubectl, parser)
		time.Sleep(time.Duration(seconds) * time.Second)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// One comparison and, if something differs, one automated sync.
func round(config *rest.Config, kubectl kube.Kubectl, parser *managedfields.GvkParser) {
	app := readApplication(os.Args[1])
	options := app.Spec.SyncPolicy.SyncOptions
	serverSide := options.HasOption(common.SyncOptionServerSideApply)
	targets := readTargets(os.Args[2])
	lives := make([]*unstructured.Unstructured, len(targets))
	for i, target := range targets {
		live, err := kubectl.GetResource(context.TODO(), config, target.GroupVersionKind(), target.GetName(), target.GetNamespace())
		if errors.IsNotFound(err) {
			continue
		}
		check(err)
		lives[i] = live
	}
	normalizer, err := normalizers.NewIgnoreNormalizer(app.Spec.IgnoreDifferences, nil, normalizers.IgnoreNormalizerOpts{})
	check(err)
	differences, err := diff.DiffArray(
		targets, lives,
		diff.WithNormalizer(normalizer),
		diff.WithStructuredMergeDiff(serverSide),
		diff.WithGVKParser(parser),
		diff.WithManager(manager),
		diff.WithLogr(logr.Discard()),
	)
	check(err)
	if !differences.Modified {
		return
	}
	if options.HasOption("RespectIgnoreDifferences=true") {
		for i, live := range lives {
			if live != nil {
				targets[i] = withIgnoredFields(normalizer, targets[i], live)
			}
		}
	}
	operation, cleanup, err := sync.NewSyncContext(
		"revision", sync.ReconciliationResult{Target: targets, Live: lives}, config, config, kubectl, app.Spec.Destination.Namespace, nil,
		sync.WithLogr(logr.Discard()),
		sync.WithManifestValidation(false),
		sync.WithResourceModificationChecker(options.HasOption("ApplyOutOfSyncOnly=true"), differences),
		sync.WithServerSideApply(serverSide),
		sync.WithServerSideApplyManager(manager),
		sync.WithSkipHooks(true),
	)
	check(err)
	defer cleanup()
	for {
		operation.Sync()
		phase, message, _ := operation.GetState()
		if phase.Completed() {
			report(operation, phase, message)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// A field that no Application has is an error.
func readApplication(file string) v1alpha1.Application {
	var app v1alpha1.Application
	text, err := os.ReadFile(file)
	check(err)
	check(yaml.UnmarshalStrict(text, &app))
	return app
}

func readTargets(folder string) []*unstructured.Unstructured {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	check(err)
	sort.Strings(files)
	var targets []*unstructured.Unstructured
	for _, file := range files {
		text, err := os.ReadFile(file)
		check(err)
		target := &unstructured.Unstructured{}
		check(target.UnmarshalJSON(text))
		targets = append(targets, target)
	}
	return targets
}

// What RespectIgnoreDifferences does with a custom resource: the merge patch from the live object without its ignored fields to the live
// object is applied to the target. Argo CD's function for it is not public. A merge patch has no parts of lists.
func withIgnoredFields(normalizer diff.Normalizer, target, live *unstructured.Unstructured) *unstructured.Unstructured {
	ofLive, ofTarget := live.DeepCopy(), target.DeepCopy()
	check(normalizer.Normalize(ofLive))
	check(normalizer.Normalize(ofTarget))
	patch, err := jsonpatch.CreateMergePatch(text(ofLive), text(live))
	check(err)
	patched, err := jsonpatch.MergePatch(text(ofTarget), patch)
	check(err)
	result := &unstructured.Unstructured{}
	check(result.UnmarshalJSON(patched))
	return result
}

func text(object *unstructured.Unstructured) []byte {
	text, err := json.Marshal(object.Object)
	check(err)
	return text
}

func report(operation sync.SyncContext, phase common.OperationPhase, message string) {
	_, _, results := operation.GetState()
	var names []string
	for _, result := range results {
		if result.Status == common.ResultCodeSynced {
			names = append(names, result.ResourceKey.Kind)
		}
	}
	sort.Strings(names)
	if phase != common.OperationSucceeded {
		fmt.Printf("%s: %s\n", phase, message)
		return
	}
	fmt.Printf("synced %s\n", strings.Join(names, " "))
}
